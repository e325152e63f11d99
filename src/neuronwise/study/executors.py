"""Who measures the cases of a study: this process, several, or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from neuronwise.errors import StudyError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.model.model import Model
    from neuronwise.model.named import Named
    from neuronwise.study.kind import Job, Unit
    from neuronwise.study.progress import Progress
    from neuronwise.study.store import Store

Make = Callable[["Model"], "Job"]  # pickled where another process makes the job
Choose = Callable[[Sequence["Unit"]], Sequence["Unit"]]  # of all units of a study those of a shard


@dataclass(frozen=True)
class Workers:
    """How many ``count`` workers there are (by default one for each accelerator or, without any, each core), and
    where: the ``address`` of a cluster, and how many ``accelerators`` each has, also parts of one."""

    count: int | None = None
    address: str | None = None
    accelerators: float | None = None


class Running(Protocol):
    """A job whose workers have opened the model. ``schema``, ``plan`` and ``source`` are the job's."""

    @property
    def about(self) -> About:
        """What the store is opened with."""
        ...

    def run(self, store: Store, tell: Progress, choose: Choose) -> None:
        """Measure every chosen case that the store does not hold, and keep it there."""
        ...


@dataclass(frozen=True)
class About:
    """What a job is of; see ``kind.Job``."""

    schema: str
    plan: dict[str, object]
    source: dict[str, object]

    @classmethod
    def of(cls, job: Job) -> About:
        """The same of a job."""
        return cls(job.schema, dict(job.plan), dict(job.source))


@dataclass(frozen=True)
class Executor:
    """``start`` opens the model where it is needed and makes the job there; ``Named``: a model not opened so far.

    ``takes``: which of ``Workers`` mean something to it. ``remote``: whether it opens the model by its name.
    """

    name: str
    start: Callable[[Model | Named, Make, Workers], AbstractContextManager[Running]]
    takes: tuple[str, ...] = ()
    remote: bool = True

    def require(self, workers: Workers) -> None:
        """Raise ``StudyError`` for what it does not take."""
        named = {"count": "workers"}
        given = [name for name, value in vars(workers).items() if value is not None]
        idle = [named.get(name, name) for name in given if name not in self.takes]
        if idle:
            raise StudyError(f"The executor {self.name!r} does not take {' or '.join(idle)}; leave it out.")
        if workers.count is not None and workers.count < 1:
            raise StudyError(f"The number of workers is {workers.count}; it is 1 or more.")


EXECUTORS: Registry[Executor] = Registry(
    "executor",
    {
        "serial": "neuronwise.study.workers.serial:SERIAL",
        "processes": "neuronwise.study.workers.processes:PROCESSES",
        "ray": "neuronwise.study.workers.on_ray:RAY",
    },
    kind="neuronwise.study.executors:Executor",
    group="neuronwise.executors",
    error=StudyError,
)
