"""The options that say who measures the cases of a study."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from neuronwise.cli.app import Names, option
from neuronwise.cli.options import Placement
from neuronwise.study.executors import EXECUTORS, Workers

if TYPE_CHECKING:
    from neuronwise.model import Model
    from neuronwise.model.named import Named

ShardOption = Annotated[
    str | None, option("Measure one part, such as 3/16; `neuronwise study merge` puts all together.")
]


@dataclass(frozen=True)
class Workforce:
    """Who measures the cases of a study or an evaluation."""

    executor: Annotated[str, option("Who measures the cases, listed below."), Names("Executors", EXECUTORS)] = "serial"
    workers: Annotated[
        int | None,
        option("Processes, or actors of a cluster.", min=1, show_default="one for each accelerator, else each core"),
    ] = None
    address: Annotated[
        str | None, option("Of a Ray cluster: auto, or HOST:PORT.", show_default="a cluster on this machine")
    ] = None
    accelerators: Annotated[
        float | None, option("Of each actor, such as 0.5.", min=0, show_default="1 where there are any")
    ] = None

    def checked(self) -> Workers:
        """How many workers, and where; raises ``NeuronwiseError`` for what the executor does not take."""
        found = Workers(self.workers, self.address, self.accelerators)
        EXECUTORS[self.executor].require(found)
        return found

    def open(self, placement: Placement, name: str | None, default: str = "builtin") -> Model | Named:
        """The model, opened where this process needs it."""
        if not EXECUTORS[self.executor].remote:
            return placement.load(name, default)
        from neuronwise.model.named import Named

        return Named(name or default, vars(placement))
