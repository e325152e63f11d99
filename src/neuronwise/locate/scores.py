"""Scores: one number per neuron for one target, kept layer by layer, and the choice of the top K over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

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

    def top(self, count: int, record: Mapping[str, Any] | None = None) -> NeuronSet:
        """The ``count`` neurons of highest score over all layers together, ties broken by (layer, expert, unit).

        Raises ``NonFiniteError`` when any score is NaN or infinite, and ``MethodError`` for a count below 1.
        """
        if not isinstance(count, int) or count < 1:
            raise MethodError(f"top is {count}; ask for 1 neuron or more.")
        places = sorted(self.values, key=lambda place: (place[0], -1 if place[1] is None else place[1]))
        flat = torch.cat([self.values[place].flatten() for place in places])
        if not torch.isfinite(flat).all():
            raise NonFiniteError(
                f"{int((~torch.isfinite(flat)).sum())} of {len(flat)} scores are not finite. "
                "In half precision, load the model with dtype=torch.float32 and try again."
            )
        # A stable sort keeps the order of (layer, expert, unit) among equals.
        order = torch.sort(flat, descending=True, stable=True).indices[:count].tolist()
        starts = torch.tensor([0] + [len(self.values[place]) for place in places]).cumsum(0)
        members = []
        for index in order:
            at = int(torch.searchsorted(starts, index, right=True)) - 1
            layer, expert = places[at]
            unit = index - int(starts[at])
            activation = self.activations.get(places[at])
            members.append(
                ScoredNeuron(
                    Neuron(layer, unit, expert),
                    float(flat[index]),
                    None if activation is None else float(activation[unit]),
                )
            )
        return NeuronSet(tuple(members), dict(record or {}))
