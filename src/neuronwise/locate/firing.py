"""How strongly chosen neurons fire at many rows of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.model.activations import Activations
from neuronwise.model.prompt import Inputs
from neuronwise.neurons import Neuron

if TYPE_CHECKING:
    from neuronwise.model import Model


def firing(model: Model, inputs: Inputs, neurons: Sequence[Neuron], rows: Sequence[int] | None = None) -> Tensor:
    """(rows, n) float32: what multiplied each neuron's value vector at some rows of a sequence, all for None.

    That is the activation, for a routed expert's neuron times the router's weight, 0 where the row went elsewhere. One
    pass, which ends after the last layer that is asked for. Raises ``NeuronError`` for a neuron out of range.
    """
    units = units_of(model, neurons)
    return chosen(model.record(inputs, rows=rows, units=units), units, neurons)


def units_of(model: Model, neurons: Sequence[Neuron]) -> dict[int, Tensor]:
    """Layer → its dense units among ``neurons``, ascending; layers of which only experts are asked for have none."""
    units: dict[int, set[int]] = {}
    for neuron in neurons:
        model.writer(neuron)  # raises for one that the model lacks
        units.setdefault(neuron.layer, set()).update([neuron.unit] if neuron.expert is None else [])
    return {layer: torch.tensor(sorted(own), dtype=torch.long) for layer, own in units.items()}


def chosen(seen: Activations, units: Mapping[int, Tensor], neurons: Sequence[Neuron]) -> Tensor:
    """(rows, n) float32 of activations that were recorded for ``units`` of each layer alone."""
    columns = []
    for neuron in neurons:
        if neuron.expert is None:
            column = int(torch.searchsorted(units[neuron.layer], neuron.unit))
            columns.append(seen.dense[neuron.layer][:, column].float())
        else:
            fired = [row.get(neuron.expert) for row in seen.routed[neuron.layer]]
            columns.append(torch.tensor([0.0 if one is None else float(one.written[neuron.unit]) for one in fired]))
    return torch.stack(columns, dim=1)
