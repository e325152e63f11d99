"""Scores: one number per neuron for one target, kept layer by layer, and the choice of the top K over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.images import ImageLike
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

Pair = tuple[Run, Target, ImageLike]  # a run, the word scored in it, and its photo without the object
Place = tuple[int, int | None]  # (layer, expert), expert None for a layer's dense neurons


@dataclass
class Scores:
    """Scores of all neurons for one target: ``values[(layer, expert)]`` is (f,) float32.

    ``activations`` holds the activations that were scored, in the same places, where the method has them. Experts
    that the token was not routed to have no entry: they wrote nothing.
    """

    values: dict[Place, Tensor] = field(default_factory=dict)
    activations: dict[Place, Tensor] = field(default_factory=dict)

    def __getitem__(self, neuron: Neuron) -> float:
        values = self.values.get((neuron.layer, neuron.expert))
        return 0.0 if values is None else float(values[neuron.unit])

    def activation(self, neuron: Neuron) -> float | None:
        """The activation that was scored; None where the method does not keep it."""
        values = self.activations.get((neuron.layer, neuron.expert))
        return None if values is None else float(values[neuron.unit])

    def top(self, count: int | None, record: Mapping[str, Any] | None = None) -> NeuronSet:
        """The ``count`` neurons (all for None) of highest score over all layers; ties broken by (layer, expert, unit).

        Raises ``NonFiniteError`` when any score is NaN or infinite, and ``MethodError`` for a count below 1.
        """
        if count is not None and count < 1:
            raise MethodError(f"top is {count}; ask for 1 neuron or more.")
        places = sorted(self.values, key=lambda place: (place[0], -1 if place[1] is None else place[1]))
        flat = torch.cat([self.values[place].flatten() for place in places])
        if not torch.isfinite(flat).all():
            raise NonFiniteError(
                f"{int((~torch.isfinite(flat)).sum())} of {len(flat)} scores are not finite. "
                "In half precision, load the model with dtype=torch.float32 and try again."
            )
        # A stable sort keeps the order of (layer, expert, unit) among equals.
        best = torch.sort(flat, descending=True, stable=True).indices[:count]
        starts = torch.tensor([0] + [len(self.values[place]) for place in places]).cumsum(0)
        at = torch.searchsorted(starts, best, right=True) - 1
        rows = zip(at.tolist(), (best - starts[at]).tolist(), flat[best].tolist(), strict=True)
        neurons = ((Neuron(places[index][0], unit, places[index][1]), score) for index, unit, score in rows)
        members = (ScoredNeuron(neuron, score, self.activation(neuron)) for neuron, score in neurons)
        return NeuronSet(tuple(members), dict(record or {}))
