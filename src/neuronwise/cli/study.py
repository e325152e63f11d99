"""The commands that run studies: begin one, go on with one, report one."""

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

if TYPE_CHECKING:
    from neuronwise.study.results import Study

SCHEMA = "neuronwise.studied/1"
EVERY = 30.0  # seconds between lines of progress where standard error is no terminal

study = typer.Typer(no_args_is_help=True, help="Run studies over whole datasets; a killed one is gone on with.")
app.add_typer(study, name="study")

DataOption = Annotated[Path | None, typer.Option(help="Folder of photos: COCO's layout, or with a metadata.jsonl.")]


@study.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or suppression, properties or localization.")],
    out: Annotated[Path, typer.Option(help="Keep every finished case there.")],
    data: DataOption = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="In place of the recipe's.")] = None,
    dtype: DtypeOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the study that a recipe describes; the same command goes on where it stopped."""
    with stdout_kept():
        require_extra()
        from neuronwise.data.photos import load_photos
        from neuronwise.study.studies import run_study
        from neuronwise.study.written import changed, read_recipe

        read = changed(read_recipe(recipe), model=model, dtype=dtype)
        where = data or read.data.folder
        if where is None:
            raise NeuronwiseError("Name a folder of photos: --data DIR, or data: {folder: DIR} in the recipe.")
        read = changed(read, data={**read.data.model_dump(), "folder": str(where)})
        photos = load_photos(where, read.data.part)
        _tell_photos(photos)
        loaded = load_model(read.model, read.dtype, device_map)
        with going_on(out), progress() as tell:
            found = run_study(loaded, read, photos, out, progress=tell)
    _print(found, as_json)


@study.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="A folder that `neuronwise study run` wrote.")],
    data: DataOption = None,
    device_map: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a study that was stopped, by the recipe that its folder holds."""
    with stdout_kept():
        require_extra()
        from neuronwise.study.studies import resume as go_on

        with going_on(folder), progress() as tell:
            found = go_on(folder, lambda read: load_model(read.model, read.dtype, device_map), data, progress=tell)
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
def going_on(folder: Path) -> Iterator[None]:
    """Say how to go on when the body is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"neuronwise: go on with: neuronwise study resume {folder}", file=sys.stderr)
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


def _tell_photos(photos: Any) -> None:
    print(f"neuronwise: {photos}", file=sys.stderr)
    for problem in photos.problems[:5]:
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
