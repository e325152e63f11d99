"""Suppression as an edit: value vectors set to zero, or freed of one direction."""

from __future__ import annotations

import torch
from torch import Tensor

from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit, column_norms
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron, NeuronSet


def suppress_neurons(model: Model, neurons: NeuronSet, *, direction: Tensor | None = None) -> Edit:
    """An edit that sets v ← 0 for every neuron, or takes out of v its part along ``direction`` (d,) alone ([OVE])."""
    groups: dict[tuple[int, str, int | None], list[tuple[int, Neuron]]] = {}
    for neuron in neurons.neurons:
        model.require(neuron)
        block = model.blocks[neuron.layer]
        if neuron.expert is not None:
            groups.setdefault((neuron.layer, block.expert(neuron.expert)[0].path, neuron.expert), []).append(
                (neuron.unit, neuron)
            )
            continue
        start = 0
        for writer in block.dense:
            if start <= neuron.unit < start + writer.width:
                groups.setdefault((neuron.layer, writer.path, None), []).append((neuron.unit - start, neuron))
            start += writer.width
    deltas = []
    for (layer, path, expert), members in groups.items():
        vectors = torch.stack([model.blocks[layer].value_vector(n).float().cpu() for _, n in members], dim=1)
        if direction is not None:
            unit = (direction.float() / direction.float().norm()).cpu().unsqueeze(1)
            vectors = unit @ (unit.T @ vectors)
        units = torch.tensor([unit for unit, _ in members])
        deltas.append(Delta(layer, path, -vectors, units=units, expert=expert))
    record = {"method": "suppress", "model": model.name, "neurons": [str(n) for n in neurons.neurons]}
    return Edit(tuple(deltas), record, column_norms(model, tuple(deltas)))
