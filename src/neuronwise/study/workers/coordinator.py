"""Giving tasks to workers, keeping what they find, and giving the task of a worker that died to another."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from neuronwise.errors import StudyError
from neuronwise.study.executors import About, Choose
from neuronwise.study.kind import Unit
from neuronwise.study.notes import Row
from neuronwise.study.progress import Progress
from neuronwise.study.store import Store
from neuronwise.study.workers.worker import Answer, Begin, Measure, Result, Task

TRIES = 3  # workers that may die of a task
CHUNK = 16  # questions that one worker answers at a time, at most


@dataclass(frozen=True)
class Ready:
    """A worker has opened the model."""

    worker: int


@dataclass(frozen=True)
class Done:
    """A worker has done its task."""

    worker: int
    result: Result


@dataclass(frozen=True)
class Died:
    """A worker has died, for a ``reason``; the crew is starting another by the same number."""

    worker: int
    reason: str


Event = Ready | Done | Died


class Crew(Protocol):
    """Workers, by their numbers, each of which does one task at a time."""

    @property
    def about(self) -> About:
        """What their job is of, once one has opened the model."""
        ...

    def give(self, worker: int, task: Task, notes: list[Row], tell: Progress) -> None:
        """Let an idle worker begin a task."""
        ...

    def wait(self) -> list[Event]:
        """What has happened since, at least one thing; raises what kept a worker from opening the model."""
        ...


class Coordinator:
    """Runs a job on a crew. ``waiting``: the workers that are ready already."""

    def __init__(self, crew: Crew, waiting: Iterable[int]) -> None:
        self._crew = crew
        self._idle = set(waiting)
        self._doing: dict[int, Task] = {}
        self._last: dict[int, str] = {}  # the route of a worker's last unit
        self._told: Counter[int] = Counter()  # how many notes a worker has
        self._deaths: Counter[Task] = Counter()

    @property
    def about(self) -> About:
        """What the store is opened with."""
        return self._crew.about

    def run(self, store: Store, tell: Progress, choose: Choose) -> None:
        """Have every chosen case measured that the store does not hold; a finished one is told of once on the disk."""
        units = choose(self._begun(store, tell))
        total = sum(len(unit.cases) for unit in units)
        wanted = [(unit, tuple(name for name in unit.cases if name not in store.cases)) for unit in units]
        done = total - sum(len(names) for _, names in wanted)
        tell("cases", done, total)
        for result in self._all([Measure(unit, names) for unit, names in wanted if names], store, tell):
            done += len(result.lines)
            tell("cases", done, total)

    def _begun(self, store: Store, tell: Progress) -> list[Unit]:
        """The units, once all that comes first has been asked by all workers."""
        while True:
            found = next(iter(list(self._all([Begin()], store, tell))))
            if found.units is not None:
                return found.units
            assert found.asks is not None
            what, keys = found.asks.what, tuple(store.before.dealt(found.asks.keys))
            size = self._chunk(len(keys), found.asks.batch)
            chunks = [Answer(what, keys[start : start + size]) for start in range(0, len(keys), size)]
            for number, _ in enumerate(self._all(chunks, store, tell), 1):
                tell(what, min(number * size, len(keys)), len(keys))

    def _chunk(self, count: int, batch: int) -> int:
        """How many questions one worker answers at a time: few enough that all end about together, whole batches."""
        few = max(1, min(CHUNK, count // (4 * max(1, len(self._idle)))))
        return -(-few // batch) * batch

    def _all(self, tasks: list[Task] | list[Measure] | list[Answer], store: Store, tell: Progress) -> Iterator[Result]:
        """Have tasks done; a result is given once what it brings is on the disk."""
        waiting = _Waiting(tasks)
        while waiting or self._doing:
            for worker in sorted(self._idle):
                task = waiting.next(self._last.get(worker), {_route(other) for other in self._doing.values()})
                if task is None:
                    break
                self._give(worker, task, store, tell)
            events = self._crew.wait()
            results = [event.result for event in events if isinstance(event, Done)]
            self._keep(results, store)
            for event in events:
                task = self._doing.pop(event.worker, None)
                if isinstance(event, Died):
                    self._idle.discard(event.worker)
                    self._told[event.worker] = 0
                    if task is not None:
                        waiting.back(self._again(task, event.reason))
                else:
                    self._idle.add(event.worker)
            yield from results

    def _give(self, worker: int, task: Task, store: Store, tell: Progress) -> None:
        if isinstance(task, Answer):
            store.before.look(task.keys)
        notes = store.before.rows[self._told[worker] :]
        self._told[worker] = len(store.before.rows)
        self._idle.discard(worker)
        self._doing[worker], self._last[worker] = task, _route(task)
        self._crew.give(worker, task, notes, tell)

    def _keep(self, results: list[Result], store: Store) -> None:
        """Write what results bring; notes first, since cases rest on them. Two workers may note the same thing."""
        notes: dict[object, Row] = {}
        for number, note in enumerate(note for result in results for note in result.notes):
            key = (note["part"], note["key"]) if "key" in note else None
            if key is None or not store.before.holds(*key):
                notes.setdefault(key or number, note)
        if notes:
            store.before.extend(list(notes.values()))
        lines = [line for result in results for line in result.lines]
        if lines:
            store.cases.extend(lines)
        for result in results:
            if result.error is not None:
                raise result.error

    def _again(self, task: Task, reason: str) -> Task:
        """The task of a dead worker, for another; after several deaths its cases fail."""
        self._deaths[task] += 1
        if self._deaths[task] < TRIES:
            return task
        why = f"{TRIES} workers ended while they worked on it, the last {reason}"
        if isinstance(task, Measure) and task.gave_up is None:
            return replace(task, gave_up=why)
        what = f"asking {task.what!r}" if isinstance(task, Answer) else "listing the cases"
        raise StudyError(f"While {what}, {TRIES} workers ended, the last {reason}. What is finished stays.")


def _route(task: Task) -> str:
    return task.unit.route if isinstance(task, Measure) else ""


class _Waiting:
    """Tasks that wait, those of one route together."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._routes: dict[str, deque[Task]] = {}
        for task in tasks:
            self._routes.setdefault(_route(task), deque()).append(task)

    def __bool__(self) -> bool:
        return bool(self._routes)

    def next(self, last: str | None, taken: set[str]) -> Task | None:
        """A task of a worker's last route, else of one that no worker is at, else any."""
        if not self._routes:
            return None
        own = [last] if last in self._routes else (route for route in self._routes if route not in taken)
        route = next(iter(own), None)
        route = next(iter(self._routes)) if route is None else route
        task = self._routes[route].popleft()
        if not self._routes[route]:
            del self._routes[route]
        return task

    def back(self, task: Task) -> None:
        """Take a task that was not done, to be the next of its route."""
        self._routes.setdefault(_route(task), deque()).appendleft(task)
