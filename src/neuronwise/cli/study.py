"""The commands that run studies: begin one, resume one, report one."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronwise.cli.app import DeviceOption, DtypeOption, JsonOption, app, load_model
from neuronwise.cli.output import print_json, print_table, stdout_kept
from neuronwise.errors import NeuronwiseError
from neuronwise.study.kinds import KINDS

if TYPE_CHECKING:
    from neuronwise.study.kind import Study

SCHEMA = "neuronwise.studied/1"
EVERY = 30.0  # seconds between lines of progress where standard error is no terminal

study = typer.Typer(no_args_is_help=True, help="Run studies over whole datasets; an interrupted one resumes.")
app.add_typer(study, name="study")

DataOption = Annotated[
    str | None,
    typer.Option(help="Folder of photos (COCO's layout, or with a metadata.jsonl), or of an evaluation the facts."),
]


@study.command()
def run(
    recipe: Annotated[str, typer.Argument(help=f"A YAML file, or a shipped recipe: {', '.join(KINDS)}.")],
    out: Annotated[Path, typer.Option(help="Keep every finished case there.")],
    data: DataOption = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="In place of the recipe's.")] = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the study that a recipe describes; the same command resumes an interrupted one."""
    with stdout_kept():
        require_extra()
        from neuronwise.study.recipe_file import changed, read_recipe
        from neuronwise.study.runner import run_study

        read = changed(read_recipe(recipe), model=model, dtype=dtype)
        if data is not None:
            read = read.at(str(data))
        given = read.load()
        _tell_data(given)
        loaded = load_model(read.model, read.dtype, device_map)
        with resumable(out), progress() as tell:
            found = run_study(loaded, read, given, out, progress=tell)
    _print(found, as_json)


@study.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="A folder that `neuronwise study run` wrote.")],
    data: DataOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Resume an interrupted study by the recipe in its folder."""
    with stdout_kept():
        require_extra()
        from neuronwise.study.runner import resume as resume_study

        with resumable(folder), progress() as tell:
            found = resume_study(
                folder, lambda read: load_model(read.model, read.dtype, device_map), data, progress=tell
            )
    _print(found, as_json)


@study.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `neuronwise study run` wrote, finished or not.")],
    as_json: JsonOption = False,
) -> None:
    """Write tables (Markdown, CSV, LaTeX), figures and one self-contained page into a study's folder."""
    with stdout_kept():
        from neuronwise.report.study import write_report
        from neuronwise.study.results import read_study

        page = write_report(folder)
        found = read_study(folder)
    _print(found, as_json, page)


def require_extra() -> None:
    """Studies need pydantic and PyYAML beside pyarrow."""
    try:
        import pydantic  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        raise NeuronwiseError("Studies need pydantic and PyYAML: pip install 'neuronwise[study]'.") from error


@contextlib.contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """Print how to resume when the body is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"neuronwise: resume with: neuronwise study resume {folder}", file=sys.stderr)
        raise


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """What is done and the time left on standard error: a bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield Told()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


class Told:
    """Lines of progress: the first, the last, and one every ``EVERY`` seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}
        self._last = -EVERY

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        start, at = self._begun.setdefault(what, (now, done))
        if now - self._last < EVERY and done < total:
            return
        self._last = now
        left = ""
        if done > at and done < total:
            left = f", about {_span((now - start) / (done - at) * (total - done))} left"
        print(f"neuronwise: {what} {done}/{total}{left}", file=sys.stderr)


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _tell_data(data: Any) -> None:
    print(f"neuronwise: {data}", file=sys.stderr)
    for problem in data.problems[:5]:
        print(f"neuronwise: {problem}", file=sys.stderr)


def _print(found: Study, as_json: bool, page: Path | None = None) -> None:
    for name, why in {**found.skipped, **found.failed}.items():
        print(f"neuronwise: {name}: {why}", file=sys.stderr)
    if as_json:
        print_json(content(found, page))
        return
    state = f"{found.cases} of {'?' if found.total is None else found.total} cases, {len(found.failed)} failed"
    print_table("", ["study", "state", "rows"], [[found.kind, state, str(len(found.rows))]])
    if page is not None:
        print(f"report: {page}")
    elif found.folder is not None:
        print(f"table: {found.folder / 'cases.parquet'}")
        print(f"report: neuronwise study report {found.folder}")


def content(found: Study, page: Path | None = None) -> dict[str, Any]:
    """What ``--json`` prints."""
    return {
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
