"""Giving tasks to workers that may die: every case is finished once, with the lines that one worker gives."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronwise.errors import NothingToStudy, StudyError
from neuronwise.model.named import Named
from neuronwise.study.executors import About
from neuronwise.study.kind import Unit
from neuronwise.study.notes import Notes, Row
from neuronwise.study.progress import Progress, silent
from neuronwise.study.results import concluded
from neuronwise.study.store import Store
from neuronwise.study.workers.coordinator import TRIES, Coordinator, Died, Done, Event, Ready
from neuronwise.study.workers.serial import Serial
from neuronwise.study.workers.worker import Answer, Measure, Task, Worker

QUESTIONS, CASES = 7, 12


@dataclass
class Toy:
    """Cases of three routes, each of which needs the answers to all questions, and one thing found for its route."""

    model: list[str]  # what was asked, found and measured, in order
    schema: str = "toy/1"
    plan: dict[str, object] = field(default_factory=lambda: {"kind": "toy"})
    source: dict[str, object] = field(default_factory=dict)

    def begin(self, notes: Notes, folder: Path | None, tell: Progress) -> list[Unit]:
        self.notes = notes
        keys = [str(number) for number in range(QUESTIONS)]

        def answer(some: Sequence[str]) -> None:
            for key in some:
                notes.kept("answer", key, partial(self._did, f"ask {key}", int(key) ** 2))

        notes.ask("answers", [key for key in keys if not notes.holds("answer", key)], answer, tell, batch=2)
        assert sum(notes.of("answer").values()) == sum(number**2 for number in range(QUESTIONS))
        notes.kept("study", "cases", lambda: {"ids": [f"c{number}" for number in range(CASES)]})
        return [Unit((f"c{number}", f"c{number + 1}"), f"route {number % 3}") for number in range(0, CASES, 2)]

    def measure(self, unit: Unit, wanted: Sequence[str]) -> Generator[Row, None, None]:
        found = self.notes.kept("found", unit.route, lambda: self._did(f"find {unit.route}", len(unit.route)))
        for name in wanted:
            self.model.append(name)
            yield {"id": name, "status": "done", "reason": None, "n": int(name[1:]), "found": found}

    def failed(self, name: str, reason: str) -> Row:
        return {"id": name, "status": "failed", "reason": reason}

    def _did(self, what: str, value: int) -> int:
        self.model.append(what)
        return value


class _Toys:
    """In place of a name of a model: what a worker did."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def load(self) -> list[str]:
        return self.did


class FakeCrew:
    """Workers in this process. ``dies(worker, task)`` says whether it dies of a task, which is then half done."""

    def __init__(self, count: int, dies: Callable[[int, Task], bool], late: int = 0) -> None:
        self._dies = dies
        self._events: list[Event] = [Ready(number) for number in range(count - late, count)]
        self.did = [_Toys() for _ in range(count)]
        self._workers = [self._new(number) for number in range(count)]
        self.tasks: list[tuple[int, Task]] = []
        self.about = About("toy/1", {"kind": "toy"}, {})

    def _new(self, number: int) -> Worker:
        return Worker(cast(Named, self.did[number]), Toy, 1)  # type: ignore[arg-type]

    def give(self, worker: int, task: Task, notes: list[Row], tell: Progress) -> None:
        self.tasks.append((worker, task))
        result = self._workers[worker].do(task, notes, tell)
        if self._dies(worker, task):
            self._workers[worker] = self._new(worker)
            self._events += [Died(worker, "by SIGKILL"), Ready(worker)]
        else:
            self._events.append(Done(worker, result))

    def wait(self) -> list[Event]:
        assert self._events, "nobody works, and the coordinator waits"
        events, self._events = list(self._events), []
        return events


def ran(crew: FakeCrew, waiting: int, folder: Path | None = None, tell: Progress = silent) -> Any:
    with Store(folder, "toy/1", {"kind": "toy"}) as store:
        Coordinator(crew, range(waiting)).run(store, tell, lambda units: units)
        return concluded(store, lambda line: [line])


def serial() -> Any:
    with Store(None, "toy/1", {"kind": "toy"}) as store:
        Serial(Toy([])).run(store, silent, lambda units: units)  # type: ignore[arg-type]
        return concluded(store, lambda line: [line])


@given(st.integers(1, 5), st.integers(0, 4), st.lists(st.booleans(), max_size=40), st.integers(0, 2**16))
def test_the_rows_are_the_serial_ones_whoever_dies(workers: int, late: int, deaths: list[bool], seed: int) -> None:
    left, died = list(deaths), dict[Task, int]()

    def dies(worker: int, task: Task) -> bool:
        if not left or not left.pop() or died.get(task, 0) == TRIES - 1:
            return False
        died[task] = died.get(task, 0) + 1
        return True

    late = min(late, workers - 1)
    found, whole = ran(FakeCrew(workers, dies, late), workers - late), serial()
    assert found.rows == whole.rows
    assert found.notes == whole.notes
    assert found.failed == {}
    assert found.finished


def test_each_route_is_one_worker_s_and_questions_are_spread() -> None:
    crew = FakeCrew(3, lambda worker, task: False)
    assert ran(crew, 3).finished
    found = [what for toys in crew.did for what in toys.did if what.startswith("find")]
    assert sorted(found) == ["find route 0", "find route 1", "find route 2"]  # each once, by three workers
    asked = [{what for what in toys.did if what.startswith("ask")} for toys in crew.did]
    assert all(asked)
    assert sum(map(len, asked)) == QUESTIONS
    assert len({task.unit.route for worker, task in crew.tasks if isinstance(task, Measure) and worker == 0}) == 1


def test_a_case_that_workers_die_of_fails_with_its_reason() -> None:
    found = ran(FakeCrew(2, lambda _, task: isinstance(task, Measure) and "c4" in task.wanted and not task.gave_up), 2)
    assert set(found.failed) == {"c4", "c5"}
    assert found.failed["c4"] == f"{TRIES} workers ended while they worked on it, the last by SIGKILL"
    assert found.finished
    assert [row["id"] for row in found.rows if row["status"] == "done"] == [
        f"c{number}" for number in range(CASES) if number not in (4, 5)
    ]


def test_a_question_that_workers_die_of_ends_the_study_and_keeps_the_rest(tmp_path: Path) -> None:
    def dies(worker: int, task: Task) -> bool:
        return isinstance(task, Answer) and "6" in task.keys

    with pytest.raises(StudyError, match="While asking 'answers', 3 workers ended, the last by SIGKILL"):
        ran(FakeCrew(2, dies), 2, tmp_path / "out")
    with Store(tmp_path / "out", "toy/1", {"kind": "toy"}) as store:
        assert set(store.before.of("answer")) == {"0", "1", "2", "3", "4", "5"}


def test_what_is_told_finished_is_on_the_disk_and_is_not_measured_again(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    lines = tmp_path / "out" / "cases.jsonl"

    def tell(what: str, done: int, total: int) -> None:
        if what == "cases":
            assert lines.read_bytes().count(b"\n") >= done
            if done >= 6:
                raise Stopped

    with pytest.raises(Stopped):
        ran(FakeCrew(2, lambda worker, task: False), 2, tmp_path / "out", tell)
    held = lines.read_bytes()
    crew = FakeCrew(2, lambda worker, task: False)
    assert ran(crew, 2, tmp_path / "out").rows == serial().rows
    assert lines.read_bytes().startswith(held)
    measured = [what for toys in crew.did for what in toys.did]
    assert sum(what.startswith("c") for what in measured) == CASES - held.count(b"\n")
    assert not any(what.startswith("ask") for what in measured)


def test_an_error_of_a_job_is_raised_once() -> None:
    class Empty(Toy):
        def begin(self, notes: Notes, folder: Path | None, tell: Progress) -> list[Unit]:
            raise NothingToStudy("There is no case.")

    crew = FakeCrew(2, lambda worker, task: False)
    crew._workers = [Worker(cast(Named, _Toys()), Empty, 1) for _ in range(2)]  # type: ignore[arg-type]
    with pytest.raises(NothingToStudy, match="There is no case"):
        ran(crew, 2)
