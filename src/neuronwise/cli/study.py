"""The commands that run studies: begin one, resume one, report one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuronwise.cli.app import Names, Output, app, argument, command, option
from neuronwise.cli.options import DeviceOption, Placement, Settings, parse_settings, require_studies
from neuronwise.cli.output import note, print_table
from neuronwise.cli.progress import progress
from neuronwise.cli.workforce import ShardOption, Workforce
from neuronwise.data.photos.load import FORMS
from neuronwise.errors import NeuronwiseError
from neuronwise.study.kinds import KINDS, shipped

if TYPE_CHECKING:
    from neuronwise.study.kind import Study

SCHEMA = "neuronwise.studied/1"
PROBLEMS = 5  # problems of the data that are printed

study = typer.Typer(no_args_is_help=True, help="Run studies over whole datasets; an interrupted one resumes.")
app.add_typer(study, name="study")

DataOption = Annotated[
    str | None,
    option("Folder of photos in a form listed below, or the facts of an evaluation."),
    Names("Forms of photos", FORMS),
]


@command(study)
def run(
    *,
    recipe: Annotated[
        str,
        argument("A YAML file of a kind listed below, or a shipped recipe."),
        Names("Kinds", KINDS),
        Names("Shipped recipes", shipped()),
    ],
    out: Annotated[Path, option("Keep every finished case there.")],
    data: DataOption = None,
    model: Annotated[str | None, option("The model.", "--model", "-m", show_default="that of the recipe")] = None,
    settings: Annotated[
        list[str] | None, option("A key of the recipe, such as seed=1; repeat for several.", "--set")
    ] = None,
    placement: Placement,
    workforce: Workforce,
    shard: ShardOption = None,
) -> Output:
    """Run the study that a recipe describes; the same command resumes an interrupted one."""
    require_studies()
    workers = workforce.checked()
    from neuronwise.study.recipe_file import changed, read_recipe
    from neuronwise.study.runner import run_study

    read = changed(read_recipe(recipe), _keys(settings, model=model, dtype=placement.dtype))
    if data is not None:
        read = read.at(data)
    given = read.load()
    note(str(given))
    for problem in given.problems[:PROBLEMS]:
        note(str(problem))
    opened = workforce.open(Placement(read.dtype, placement.device_map), read.model)
    with _resumable(out), progress() as tell:
        return _output(
            run_study(
                opened, read, given, out, executor=workforce.executor, workers=workers, shard=shard, progress=tell
            )
        )


@command(study)
def resume(
    *,
    folder: Annotated[Path, argument("A folder that `neuronwise study run` wrote.")],
    data: DataOption = None,
    device_map: DeviceOption = None,
    workforce: Workforce,
) -> Output:
    """Resume an interrupted study by the recipe in its folder; others may measure the rest."""
    require_studies()
    workers = workforce.checked()
    from neuronwise.study.runner import resume as resume_study

    with _resumable(folder), progress() as tell:
        found = resume_study(
            folder, lambda read: workforce.open(Placement(read.dtype, device_map), read.model), data,
            executor=workforce.executor, workers=workers, progress=tell,
        )  # fmt: skip
        return _output(found)


@command(study)
def merge(
    *,
    shards: Annotated[list[Path], argument("The folder of every shard, in any order.")],
    out: Annotated[Path, option("A new folder for the whole study.")],
) -> Output:
    """Put the shards of a study together; the rows are those of the study run as a whole."""
    require_studies()
    from neuronwise.study.shards import merge as merge_shards

    return _output(merge_shards(shards, out))


@command(study)
def report(
    *,
    folder: Annotated[Path, argument("A folder that `neuronwise study run` wrote, finished or not.")],
) -> Output:
    """Write tables (Markdown, CSV, LaTeX), figures and one self-contained page into a study's folder."""
    from neuronwise.report.study import write_report
    from neuronwise.study.results import read_study

    page = write_report(folder)
    return _output(read_study(folder), page)


def _keys(settings: Sequence[str] | None, **options: str | None) -> Settings:
    """The keys that ``--set`` and options of the same names change; raises ``NeuronwiseError`` for one in both."""
    keys = parse_settings(settings)
    given = {name: value for name, value in options.items() if value is not None}
    for name in given.keys() & keys.keys():
        raise NeuronwiseError(f"--{name} and --set {name} are both given; give one.")
    return {**keys, **given}


@contextlib.contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Print how to resume when the body is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        note(f"resume with: neuronwise study resume {folder}")
        raise


def _output(found: Study, page: Path | None = None) -> Output:
    for name, why in {**found.skipped, **found.failed}.items():
        note(f"{name}: {why}")
    content = {
        "schema": SCHEMA,
        "kind": found.kind,
        "folder": str(found.folder),
        "cases": found.cases,
        "total": found.total,
        "finished": found.finished,
        "rows": len(found.rows),
        "failed": dict(found.failed),
        "skipped": dict(found.skipped),
        "report": None if page is None else str(page),
    }
    return Output(content, lambda: _show(found, page))


def _show(found: Study, page: Path | None) -> None:
    state = f"{found.cases} of {'?' if found.total is None else found.total} cases, {len(found.failed)} failed"
    print_table("", ["study", "state", "rows"], [[found.kind, state, str(len(found.rows))]])
    if page is not None:
        print(f"report: {page}")
    elif found.folder is not None:
        print(f"table: {found.folder / 'cases.parquet'}")
        print(f"report: neuronwise study report {found.folder}")
