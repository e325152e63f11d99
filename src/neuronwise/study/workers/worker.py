"""What a worker does, wherever it is: it holds a model and a job, and answers tasks with results.

A worker asks and measures nothing that another one has: it is given the notes that it lacks with each task, and what
it notes goes back with the result. Only the coordinator writes.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from neuronwise.model.named import Named
from neuronwise.study.executors import About, Make
from neuronwise.study.kind import Unit
from neuronwise.study.notes import Notes, Row
from neuronwise.study.progress import Progress, silent


@dataclass(frozen=True)
class Begin:
    """Say what has to be asked next, or list the units."""


@dataclass(frozen=True)
class Answer:
    """Answer some of the questions that ``Begin`` said have to be asked."""

    what: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Measure:
    """Measure the wanted cases of a unit; with ``gave_up`` say for that reason that they failed."""

    unit: Unit
    wanted: tuple[str, ...]
    gave_up: str | None = None


Task = Begin | Answer | Measure


@dataclass
class Result:
    """What a task came to. ``units`` or ``asks`` answer ``Begin``; ``error``: what ended it, and where."""

    notes: list[Row] = field(default_factory=list)
    lines: list[Row] = field(default_factory=list)
    units: list[Unit] | None = None
    asks: Asks | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Asks:
    """Questions that do not depend on each other; so many are answered together."""

    what: str
    keys: tuple[str, ...]
    batch: int


class _Unasked(Exception):
    """Raised through a job's ``begin`` where questions are others' to answer."""

    def __init__(self, asks: Asks) -> None:
        super().__init__(asks.what)
        self.asks = asks


class _WorkerNotes(Notes):
    """Notes of which the ``new`` ones are to go to the coordinator; ``mine``: the questions to answer here."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[Row] = []
        self.mine: Answer | None = None

    def extend(self, rows: Sequence[Row]) -> None:
        super().extend(rows)
        self.new += rows

    def ask(
        self, what: str, keys: Sequence[str], answer: Callable[[Sequence[str]], object], tell: Progress, batch: int = 1
    ) -> None:
        if not keys:
            return
        if self.mine is not None and self.mine.what == what:
            mine = [key for key in keys if key in self.mine.keys]
            super().ask(what, mine, answer, silent, batch)
        raise _Unasked(Asks(what, tuple(keys), batch))


class Worker:
    """A job on a model of its own; ``threads``: of the processor, at most. Raises what opening the model raises."""

    def __init__(self, model: Named, make: Make, threads: int) -> None:
        import torch

        torch.set_num_threads(max(1, min(threads, torch.get_num_threads())))
        self._job = make(model.load())
        self._notes = _WorkerNotes()
        self._begun = False
        self.about = About.of(self._job)

    def do(self, task: Task, notes: Sequence[Row], tell: Progress = silent) -> Result:
        """Do a task, knowing these notes besides those known before."""
        self._notes.learn(notes)
        self._notes.new, self._notes.mine = [], task if isinstance(task, Answer) else None
        result = Result(self._notes.new)
        try:
            if isinstance(task, Measure):
                self._measure(task, result, tell)
            else:
                result.units = self._begin(tell)
        except _Unasked as unasked:
            result.asks = unasked.asks
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            result.error = error
        return result

    def _begin(self, tell: Progress) -> list[Unit]:
        units = list(self._job.begin(self._notes, None, tell))
        self._begun = True
        return units

    def _measure(self, task: Measure, result: Result, tell: Progress) -> None:
        if not self._begun:
            self._begin(tell)
        if task.gave_up is not None:
            result.lines += [self._job.failed(name, task.gave_up) for name in task.wanted]
            return
        with contextlib.closing(self._job.measure(task.unit, task.wanted)) as lines:
            result.lines += lines


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
