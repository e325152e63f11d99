"""Progress on standard error: bars on a terminal, for long work lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

EVERY = 30.0  # seconds between lines of progress where standard error is not a terminal

Tell = Callable[[str, int, int], None]


@contextlib.contextmanager
def status(what: str) -> Iterator[None]:
    """Show on a terminal what is being done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for one piece of work; nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with _bars() as tell:
        yield lambda done, total: tell(what, done, total)


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    """Bars by name with the time left; lines now and then where there is no terminal."""
    if not sys.stderr.isatty():
        yield ProgressLines()
        return
    with _bars() as tell:
        yield tell


class ProgressLines:
    """Lines of progress: the first, the last, and one every ``EVERY`` seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begun: dict[str, tuple[float, int]] = {}
        self._last = -EVERY

    def __call__(self, what: str, done: int, total: int) -> None:
        """Print a line where it is time."""
        now = self._clock()
        start, first = self._begun.setdefault(what, (now, done))
        if now - self._last < EVERY and done < total:
            return
        self._last = now
        left = f", about {_span((now - start) / (done - first) * (total - done))} left" if first < done < total else ""
        print(f"neuronwise: {what} {done}/{total}{left}", file=sys.stderr)


@contextlib.contextmanager
def _bars() -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], completed=done, total=total)

        yield tell


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
