"""Suppression as an edit: value vectors set to zero, or freed of one direction."""

from __future__ import annotations

import torch
from torch import Tensor

from neuronwise.edit.delta import Delta, by_writer, columns_of
from neuronwise.edit.edit import Edit, column_norms
from neuronwise.model.model import Model
from neuronwise.neurons import NeuronSet


def suppress_neurons(model: Model, neurons: NeuronSet, *, direction: Tensor | None = None) -> Edit:
    """An edit that sets v ← 0 for every neuron, or takes out of v its part along ``direction`` (d,) alone ([OVE])."""
    deltas = []
    for (layer, path, expert), members in by_writer(model, neurons.neurons).items():
        vectors = torch.stack([model.blocks[layer].value_vector(n).float().cpu() for n in members], dim=1)
        if direction is not None:
            unit = (direction.float() / direction.float().norm()).cpu().unsqueeze(1)
            vectors = unit @ (unit.T @ vectors)
        deltas.append(Delta(layer, path, -vectors, units=columns_of(model, members), expert=expert))
    record = {"method": "suppress", "model": model.name, "neurons": [str(n) for n in neurons.neurons]}
    return Edit(tuple(deltas), record, column_norms(model, tuple(deltas)))
