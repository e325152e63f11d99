"""What is being learned: for each request its own Δ of its own neurons, added where their writers write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.edit.delta import Delta, Place, by_writer, columns_of, writer_of
from neuronwise.model.anatomy import Routed
from neuronwise.model.hooks import Hooks, first_tensor
from neuronwise.model.model import Model
from neuronwise.model.products import ChangedProducts
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

    @property
    def routed(self) -> bool:
        """Whether it changes experts: these see tokens of all sequences at once, so it passes alone."""
        return any(expert is not None for _, _, expert in self.units)

    def deltas(self) -> tuple[Delta, ...]:
        values = self.values.detach().cpu()
        return tuple(
            Delta(layer, path, values[self.rows[layer, path, expert]].T.contiguous(), units=units, expert=expert)
            for (layer, path, expert), units in self.units.items()
        )


def lowest_layer(model: Model, changes: Sequence[Change]) -> int:
    """The first layer that any of the changed writers serves: some models use one block in several layers."""
    places = {place for change in changes for place in change.units}
    changed = {id(writer_of(model, layer, path)) for layer, path, expert in places if expert is None}
    lowest = [layer for layer, block in enumerate(model.blocks) if any(id(w.module) in changed for w in block.dense)]
    return min([*lowest[:1], *(layer for layer, _, expert in places if expert is not None)])


class Shown:
    """The changes that are in the passes to come: ``of[i]`` is the change of sequence i, ``values[i]`` its Δ."""

    def __init__(self, model: Model, hooks: Hooks, changes: Sequence[Change]) -> None:
        self.of: Sequence[Change] = ()
        self.values: Sequence[Tensor] = ()
        fused: dict[tuple[int, str], Routed] = {}
        for place in dict.fromkeys(place for change in changes for place in change.units):
            layer, path, expert = place
            if expert is None:
                hooks.after(writer_of(model, layer, path), self._adder(place))
                continue
            routed, index = model.blocks[layer].expert(expert)
            if routed.parameter is None:
                hooks.after(routed.linears[index], self._adder(place))
            else:
                fused[layer, path] = routed
        for (layer, path), routed in fused.items():
            first = model.blocks[layer].first_expert(routed)
            hooks.hold(ChangedProducts(routed, self._expert_adder(layer, path, first)))

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

    def _expert_adder(self, layer: int, path: str, first: int) -> Any:
        def product(expert: int, inputs: Tensor, output: Tensor) -> Tensor | None:
            place = (layer, path, first + expert)
            if not any(place in change.units for change in self.of):
                return None
            assert len(self.of) == 1, "tokens of several sequences cannot be told apart within an expert"
            return output + self._added(0, place, inputs).to(output.dtype)

        return product

    def _added(self, number: int, place: Place, inputs: Tensor) -> Tensor:
        change = self.of[number]
        fired = inputs[:, change.units[place].to(inputs.device)].float()
        return fired @ self.values[number][change.rows[place]].to(fired.device)
