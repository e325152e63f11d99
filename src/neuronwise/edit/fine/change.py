"""What is being learned: for each request its own Δ of its own neurons, added where their writers write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.edit.delta import Delta, Place, by_writer, columns_of, writer_of
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron


class Change:
    """Δ of one request: ``values`` (neurons, d) in float32, all places one below the other."""

    def __init__(self, model: Model, neurons: Sequence[Neuron]) -> None:
        self.units: dict[Place, Tensor] = {}
        self.rows: dict[Place, slice] = {}
        start = 0
        for place, members in by_writer(model, neurons).items():
            self.units[place] = columns_of(model, members)
            self.rows[place] = slice(start, start + len(members))
            start += len(members)
        self.values = torch.zeros(start, model.hidden_size, device=model.device, requires_grad=True)

    def deltas(self) -> tuple[Delta, ...]:
        values = self.values.detach().cpu()
        return tuple(
            Delta(layer, path, values[self.rows[layer, path, expert]].T.contiguous(), units=units, expert=expert)
            for (layer, path, expert), units in self.units.items()
        )


def lowest_layer(model: Model, changes: Sequence[Change]) -> int:
    """The first layer that any of the changed writers serves: some models use one block in several layers."""
    changed = {id(writer_of(model, layer, path)) for change in changes for layer, path, _ in change.units}
    return next(layer for layer, block in enumerate(model.blocks) if any(id(w.module) in changed for w in block.dense))


class Shown:
    """The changes that are in the passes to come: ``of[i]`` is the change of sequence i, ``values[i]`` its Δ."""

    def __init__(self, model: Model, hooks: Hooks, changes: Sequence[Change]) -> None:
        self.of: Sequence[Change] = ()
        self.values: Sequence[Tensor] = ()
        for place in dict.fromkeys(place for change in changes for place in change.units):
            hooks.after(writer_of(model, place[0], place[1]), self._adder(place))

    def _adder(self, place: Place) -> Any:
        def after(module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Tensor) -> Tensor:
            members = [number for number, change in enumerate(self.of) if place in change.units]
            if not members:
                return output
            inputs: Tensor = first_tensor(args, dict(kwargs))
            inputs = inputs.reshape(len(self.of), -1, inputs.shape[-1])  # some blocks run the batch's rows in one
            written = output.reshape(len(self.of), -1, output.shape[-1])
            added = [self._added(number, place, inputs[number]) for number in members]
            at = torch.tensor(members, device=output.device)
            return written.index_add(0, at, torch.stack(added).to(output.dtype)).reshape(output.shape)

        return after

    def _added(self, number: int, place: Place, inputs: Tensor) -> Tensor:
        change = self.of[number]
        fired = inputs[:, change.units[place].to(inputs.device)].float()
        return fired @ self.values[number][change.rows[place]].to(fired.device)
