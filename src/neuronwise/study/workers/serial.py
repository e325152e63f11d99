"""One case after another, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from neuronwise.model.model import Model
from neuronwise.model.named import Named
from neuronwise.study.executors import About, Choose, Executor, Make, Workers
from neuronwise.study.kind import Job
from neuronwise.study.progress import Progress
from neuronwise.study.store import Store


@dataclass
class Serial:
    """A job in this process."""

    job: Job

    @property
    def about(self) -> About:
        """What the store is opened with."""
        return About.of(self.job)

    def run(self, store: Store, tell: Progress, choose: Choose) -> None:
        """Measure every chosen case that the store does not hold; each is on the disk before the next begins."""
        units = choose(self.job.begin(store.before, store.folder, tell))
        total = sum(len(unit.cases) for unit in units)
        done = sum(name in store.cases for unit in units for name in unit.cases)
        tell("cases", done, total)
        for unit in units:
            wanted = [name for name in unit.cases if name not in store.cases]
            if not wanted:
                continue
            with contextlib.closing(self.job.measure(unit, wanted)) as lines:
                for line in lines:
                    store.cases.extend([line])
                    done += 1
                    tell("cases", done, total)


@contextlib.contextmanager
def start(model: Model | Named, make: Make, workers: Workers) -> Iterator[Serial]:
    """Make the job here."""
    yield Serial(make(model.load() if isinstance(model, Named) else model))


SERIAL = Executor("serial", start, remote=False)
