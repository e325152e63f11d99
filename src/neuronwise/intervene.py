"""Interventions: temporary changes of a model, always undone on exit, also when the body raises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.model.blocks import expert_weight
from neuronwise.model.hooks import Hooks
from neuronwise.model.interfere import change_activations
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model


@contextlib.contextmanager
def suppress(model: Model, neurons: NeuronSet | ScoredNeuron | Iterable[Neuron | str]) -> Iterator[None]:
    """Within the body the neurons' activations are 0, at all positions and steps.

    Dense neurons are silenced by hooks; a routed expert's by a zero value vector, restored to the bit. Raises
    ``NeuronError`` for a neuron the model does not have, before anything is changed.
    """
    chosen = _by_layer(model, neurons)
    saved: list[tuple[Tensor, Tensor]] = []
    try:
        with Hooks() as hooks:
            for layer, members in chosen.items():
                units = [n.unit for n in members if n.expert is None]
                if units:
                    change_activations(hooks, model.blocks[layer], _silence(units))
                for neuron in members:
                    if neuron.expert is not None:
                        routed, index = model.blocks[layer].expert(neuron.expert)
                        column = expert_weight(routed, index)[:, neuron.unit]
                        saved.append((column, column.clone()))
                        with torch.no_grad():
                            column.zero_()
            yield
    finally:
        with torch.no_grad():
            for column, before in reversed(saved):
                column.copy_(before)


def _silence(units: list[int]):
    index = torch.tensor(units)

    def change(activations: Tensor) -> Tensor:
        activations[..., index.to(activations.device)] = 0
        return activations

    return change


def _by_layer(model: Model, neurons: NeuronSet | ScoredNeuron | Iterable[Neuron | str]) -> dict[int, list[Neuron]]:
    if isinstance(neurons, NeuronSet):
        listed: list[Neuron | str] = list(neurons.neurons)
    else:
        listed = [neurons.neuron] if isinstance(neurons, ScoredNeuron) else list(neurons)
    chosen: dict[int, list[Neuron]] = {}
    for item in listed:
        neuron = Neuron.parse(item) if isinstance(item, str) else item
        model.require(neuron)
        chosen.setdefault(neuron.layer, []).append(neuron)
    return chosen
