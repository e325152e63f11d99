"""Workers in processes of this machine, each with a model of its own; they talk through pipes alone."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from neuronwise.errors import StudyError, told
from neuronwise.model.model import Model
from neuronwise.model.named import Named
from neuronwise.study.executors import About, Executor, Make, Workers
from neuronwise.study.notes import Row
from neuronwise.study.progress import Progress, silent
from neuronwise.study.workers.coordinator import TRIES, Coordinator, Died, Done, Event, Ready
from neuronwise.study.workers.worker import Result, Task, Worker, cores

ENDING = 2.0  # seconds that a worker may take to end by itself


@dataclass
class _Process:
    """One worker, and the ends of its pipes that are ours."""

    process: SpawnProcess
    tasks: Connection
    results: Connection
    ready: bool = False
    tell: Progress = silent


class Processes:
    """``count`` spawned processes; one that dies is replaced."""

    def __init__(self, model: Named, make: Make, count: int) -> None:
        with told(StudyError, "The study cannot be sent to worker processes"):
            self._payload = pickle.dumps((model, make))
        self._cards, self._threads = _cards(count), max(1, cores() // count)
        self._unready: Counter[int] = Counter()  # deaths before the model was open
        self._about: About | None = None
        self._workers: list[_Process] = []
        try:
            for number in range(count):
                self._workers.append(self._started(number))
        except BaseException:
            self.close()
            raise

    @property
    def about(self) -> About:
        """What their job is of."""
        assert self._about is not None, "no worker is ready"
        return self._about

    def _started(self, number: int) -> _Process:
        context = get_context("spawn")
        (given, tasks), (results, back) = context.Pipe(duplex=False), context.Pipe(duplex=False)
        process = context.Process(
            target=_work, args=(self._payload, given, back, self._cards[number], self._threads), daemon=True
        )
        process.start()
        given.close()  # so that a pipe ends when its worker does
        back.close()
        return _Process(process, tasks, results)

    def give(self, worker: int, task: Task, notes: list[Row], tell: Progress) -> None:
        """Send a task; that its worker is dead shows in ``wait``."""
        self._workers[worker].tell = tell
        with contextlib.suppress(BrokenPipeError):
            self._workers[worker].tasks.send((task, notes))

    def wait(self) -> list[Event]:
        """What has happened, at least one thing; raises what kept a worker from opening the model."""
        events: list[Event] = []
        while not events:
            there = connection.wait([one.results for one in self._workers])
            for number, one in enumerate(self._workers):
                if one.results in there:
                    events += self._heard(number, one)
        return events

    def _heard(self, number: int, one: _Process) -> Iterator[Event]:
        try:
            message = one.results.recv()
        except (EOFError, OSError):
            yield self._died(number, one)
            return
        if isinstance(message, Exception):
            raise message
        if isinstance(message, About):
            if self._about is not None and message != self._about:
                raise StudyError(f"Worker {number} has other data or another model than the others.")
            self._about, one.ready = message, True
            yield Ready(number)
        elif isinstance(message, Result):
            yield Done(number, message)
        else:
            one.tell(*message)

    def _died(self, number: int, one: _Process) -> Died:
        _end(one)
        code = one.process.exitcode or 0
        reason = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
        if not one.ready:
            self._unready[number] += 1
            if self._unready[number] >= TRIES:
                raise StudyError(
                    f"Worker {number} ended {reason} before it had opened the model, {TRIES} times; memory may not "
                    "suffice for so many models, or a script that runs a study lacks `if __name__ == '__main__':`."
                )
        self._workers[number] = self._started(number)
        return Died(number, reason)

    def close(self) -> None:
        """End all workers: those that have nothing to do by themselves, the others by force."""
        for one in self._workers:
            one.tasks.close()
        for one in self._workers:
            _end(one)


def _end(one: _Process) -> None:
    one.process.join(timeout=ENDING)
    if one.process.is_alive():
        one.process.kill()
        one.process.join()
    one.tasks.close()
    one.results.close()


def _cards(count: int) -> list[str | None]:
    """Which accelerators each worker sees: one each, shared where there are fewer, several where there are more."""
    import torch

    found = os.environ.get("CUDA_VISIBLE_DEVICES")
    listed = [one for one in found.split(",") if one] if found else [str(n) for n in range(torch.cuda.device_count())]
    if not listed:
        return [None] * count
    return [",".join(listed[number::count] or [listed[number % len(listed)]]) for number in range(count)]


def _work(payload: bytes, tasks: Connection, results: Connection, cards: str | None, threads: int) -> None:
    """The life of a worker process; it ends with its coordinator."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator, which is interrupted too, ends its workers
    os.dup2(2, 1)  # standard output is the command's
    if cards is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = cards
    with contextlib.suppress(BrokenPipeError, EOFError):
        try:
            model, make = pickle.loads(payload)
            worker = Worker(model, make, threads)
        except Exception as error:
            results.send(_sendable(error))
            return
        results.send(worker.about)
        while True:
            task, notes = tasks.recv()
            result = worker.do(task, notes, lambda what, done, total: results.send((what, done, total)))
            if result.error is not None:
                result.error = _sendable(result.error)
            results.send(result)


def _sendable(error: Exception) -> Exception:
    """The error itself where it survives being sent, else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return StudyError(f"{type(error).__name__}: {error}")
    return error


@contextlib.contextmanager
def start(model: Model | Named, make: Make, workers: Workers) -> Iterator[Coordinator]:
    """Start the processes and wait until the first has opened the model."""
    import torch

    named = model if isinstance(model, Named) else Named.of(model)
    crew = Processes(named, make, workers.count or torch.cuda.device_count() or cores())
    try:
        ready: set[int] = set()
        while not ready:
            ready = {event.worker for event in crew.wait() if isinstance(event, Ready)}
        yield Coordinator(crew, ready)
    finally:
        crew.close()


PROCESSES = Executor("processes", start, takes=("count",))
