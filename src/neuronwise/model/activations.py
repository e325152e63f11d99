"""What one forward pass left behind of the neurons' activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class ExpertActivation:
    """One expert's activations (f,) for one token, and the weight with which its output is written."""

    activation: Tensor
    weight: float

    @property
    def written(self) -> Tensor:
        """(f,) float32: router weight · activation, what multiplies the value vectors, as a dense activation does."""
        return self.weight * self.activation.float()

    def cpu(self) -> ExpertActivation:
        """The same on the CPU."""
        return ExpertActivation(self.activation.cpu(), self.weight)


Row = dict[int, ExpertActivation]


@dataclass
class Activations:
    """What one forward pass left behind.

    ``dense[l]`` is (rows, f) for layer l, in the model's dtype, on the CPU; ``routed[l][r]`` maps the experts that
    row r was routed to (numbered as neurons are addressed) to their activations and router weights. One writer's part
    of either is ``Writer.fired``. ``stream`` (rows, d), where it was recorded, is what the final norm was given.
    """

    dense: dict[int, Tensor] = field(default_factory=dict)
    routed: dict[int, list[Row]] = field(default_factory=dict)
    stream: Tensor | None = None

    def split(self, counts: Sequence[int]) -> list[Activations]:
        """Its rows in parts of so many each, copied so that no part keeps another in memory; empty for 0 rows."""
        if len(counts) == 1:
            return [self]
        found, start = [], 0
        for count in counts:
            own = slice(start, start := start + count)
            dense = {layer: rows[own].clone() for layer, rows in self.dense.items()} if count else {}
            routed = {layer: rows[own] for layer, rows in self.routed.items()} if count else {}
            stream = None if self.stream is None or not count else self.stream[own].clone()
            found.append(Activations(dense, routed, stream))
        return found
