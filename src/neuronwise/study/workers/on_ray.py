"""Workers as actors of a Ray cluster: one that exists, or one on this machine that ends with the study."""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from neuronwise.errors import StudyError, reason, told
from neuronwise.model.model import Model
from neuronwise.model.named import Named
from neuronwise.study.executors import About, Executor, Make, Workers
from neuronwise.study.notes import Row
from neuronwise.study.progress import Progress
from neuronwise.study.workers.coordinator import TRIES, Coordinator, Died, Done, Event, Ready
from neuronwise.study.workers.worker import Result, Task, Worker, cores

if TYPE_CHECKING:
    from ray import ObjectRef

ANSWERS = 60.0  # seconds in which a cluster has to answer
_PROBE = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)"


class _Actor:
    """A worker in a process of the cluster; what kept it from opening the model is said by ``about``."""

    def __init__(self, payload: bytes, threads: int) -> None:
        self._error: Exception | None = None
        try:
            model, make = pickle.loads(payload)
            self._worker = Worker(model, make, threads)
        except Exception as error:
            self._error = error

    def about(self) -> About | Exception:
        return self._worker.about if self._error is None else self._error

    def do(self, task: Task, notes: list[Row]) -> Result:
        return self._worker.do(task, notes)


class Actors:
    """``count`` actors with so many processor cores and ``accelerators`` each; one that dies is replaced."""

    def __init__(self, model: Named, make: Make, count: int, threads: int, accelerators: float) -> None:
        import ray

        self._ray, self._threads = ray, threads
        with told(StudyError, "The study cannot be sent to a Ray cluster"):
            self._payload = ray.put(pickle.dumps((model, make)))
        self._actor = ray.remote(_Actor).options(num_cpus=threads, num_gpus=accelerators, max_restarts=0)
        self._unready: Counter[int] = Counter()  # deaths before the model was open
        self._about: About | None = None
        self._hands: dict[int, Any] = {}
        self._awaited: dict[ObjectRef, int] = {}
        for number in range(count):
            self._start(number)

    @property
    def about(self) -> About:
        """What their job is of."""
        assert self._about is not None, "no worker is ready"
        return self._about

    def _start(self, number: int) -> None:
        self._hands[number] = self._actor.remote(self._payload, self._threads)
        self._awaited[self._hands[number].about.remote()] = number

    def give(self, worker: int, task: Task, notes: list[Row], tell: Progress) -> None:
        """Send a task; that its worker is dead shows in ``wait``."""
        self._awaited[self._hands[worker].do.remote(task, notes)] = worker

    def wait(self) -> list[Event]:
        """What has happened, at least one thing; raises what kept a worker from opening the model."""
        self._ray.wait(list(self._awaited), num_returns=1)
        there, _ = self._ray.wait(list(self._awaited), num_returns=len(self._awaited), timeout=0)
        return [self._heard(self._awaited.pop(one), one) for one in there]

    def _heard(self, number: int, found: ObjectRef) -> Event:
        try:
            message = self._ray.get(found)
        except self._ray.exceptions.RayActorError as error:
            return self._died(number, reason(error))
        except self._ray.exceptions.RayError as error:
            raise StudyError(f"The Ray cluster failed: {reason(error)}") from error
        if isinstance(message, Exception):
            raise message
        if isinstance(message, Result):
            return Done(number, message)
        if self._about is not None and message != self._about:
            raise StudyError(f"Worker {number} has other data or another model than the others.")
        self._about = message
        self._unready[number] = -TRIES  # this one can
        return Ready(number)

    def _died(self, number: int, why: str) -> Died:
        self._unready[number] += 1
        if self._unready[number] >= TRIES:
            raise StudyError(f"Worker {number} ended before it had opened the model, {TRIES} times: {why}")
        self._start(number)
        return Died(number, f"with its actor: {why}")

    def close(self) -> None:
        """End all actors."""
        for actor in self._hands.values():
            with contextlib.suppress(Exception):
                self._ray.kill(actor)


@contextlib.contextmanager
def _cluster(address: str | None, cpus: int) -> Iterator[Any]:
    """Ray, connected to a cluster; raises ``StudyError`` for an address that does not answer."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to Ray's makers
    if address is None and "ray" not in sys.modules:  # once imported, Ray sees to its token by itself
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise StudyError("The executor 'ray' needs Ray: pip install 'neuronwise[ray]'.") from error
    own = not ray.is_initialized()
    if own:
        if address is not None:
            _require_answer(address)
        with told(StudyError, "Ray cannot be started"):
            if address is None:
                ray.init(
                    num_cpus=cpus, include_dashboard=False, log_to_driver=False, configure_logging=False,
                    _node_ip_address="127.0.0.1",
                )  # fmt: skip
            else:
                ray.init(address=address, log_to_driver=False, configure_logging=False)
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise ``StudyError`` unless a cluster answers in time; asked by another process, which Ray may end or hold."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():
            socket.create_connection((host, int(port)), timeout=ANSWERS / 4).close()  # "refused" is known at once
        asked = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=ANSWERS, check=False
        )
        said = (asked.stderr.strip().splitlines() or [""])[-1]
        failed = asked.returncode != 0
    except subprocess.TimeoutExpired:
        said, failed = f"no answer in {ANSWERS:.0f} s", True
    except OSError as error:
        said, failed = reason(error), True
    if failed:
        raise StudyError(
            f"No Ray cluster answers at '{address}' ({said[:200]}); name the address that `ray start --head` prints, "
            "and set RAY_AUTH_TOKEN to the cluster's token where it has one."
        )


@contextlib.contextmanager
def start(model: Model | Named, make: Make, workers: Workers) -> Iterator[Coordinator]:
    """Connect, start the actors, and wait until the first has opened the model."""
    named = model if isinstance(model, Named) else Named.of(model)
    with _cluster(workers.address, max(cores(), workers.count or 1)) as ray:
        there = ray.cluster_resources()
        accelerators = workers.accelerators
        if accelerators is None:
            accelerators = 1.0 if there.get("GPU") else 0.0
        if accelerators > there.get("GPU", 0):
            raise StudyError(f"The cluster has {there.get('GPU', 0):g} accelerators; {accelerators:g} were asked for.")
        count = workers.count or max(1, int(there["GPU"] / accelerators if accelerators else there.get("CPU", 1)))
        threads = max(1, int(there.get("CPU", 1)) // count)
        crew = Actors(named, make, count, threads, accelerators)
        try:
            ready: set[int] = set()
            while not ready:
                ready = {event.worker for event in crew.wait() if isinstance(event, Ready)}
            yield Coordinator(crew, ready)
        finally:
            crew.close()


RAY = Executor("ray", start, takes=("count", "address", "accelerators"))
