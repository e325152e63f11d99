"""Recording activations during forward passes: only the rows and units asked for, never all hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError
from neuronwise.model.activations import Activations, ExpertActivation
from neuronwise.model.blocks import Block
from neuronwise.model.experts import RoutedCall, call_unit, record_routed, watching
from neuronwise.model.hooks import Hooks, first_tensor


class Recorder:
    """Records the inputs of W_down (the activations) in every forward pass inside the body.

    ``rows`` are positions of the pass (negative ones count from its end), ``None`` for all; ``units`` restricts the
    dense neurons of a layer (and drops layers not named). One ``Activations`` for each pass is in ``passes``, complete
    once the body is left. ``opening`` names rows of the first pass whose dense activations are kept besides, on the
    model's device, in ``opened``.

    >>> with Recorder(model.blocks) as recorder:
    ...     model.module.generate(...)
    >>> recorder.passes[k].dense[l]     # the last position's activations at step k
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        rows: Sequence[int] | None = (-1,),
        units: Mapping[int, Tensor] | None = None,
        routed: bool = True,
        opening: Tensor | None = None,
    ) -> None:
        self.blocks = [b for b in blocks if units is None or b.layer in units]
        self.rows = None if rows is None else list(rows)
        self.units = units
        self.with_routed = routed
        self.opening = opening
        self.opened = Activations()
        self.passes: list[Activations] = []
        self._hooks = Hooks()
        self._tokens = 0

    def __enter__(self) -> Recorder:
        self._hooks.__enter__()
        try:
            self._register()
        except BaseException:
            self._hooks.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._hooks.__exit__()
        # Not sooner: each copy from an accelerator would make the pass wait.
        for recorded in self.passes:
            recorded.dense = {layer: rows.cpu() for layer, rows in recorded.dense.items()}

    def _register(self) -> None:
        # One module may serve several layers (Zamba shares its feed-forward block): its calls within a pass come in
        # the layers' order.
        served: dict[int, list[tuple[Block, int]]] = {}
        modules: dict[int, nn.Module] = {}
        for block in self.blocks:
            for number, writer in enumerate(block.dense):
                served.setdefault(id(writer.module), []).append((block, number))
                modules[id(writer.module)] = writer.module
        for key, places in served.items():
            self._hooks.before(modules[key], _Dense(self, places))
        for block in self.blocks if self.with_routed else ():
            if block.routed:
                self._hooks.before(block.module, self._count_tokens)
            for routed in block.routed:
                keep = _Routed(self, block, block.first_expert(routed))
                record_routed(self._hooks, routed, parent_of(block.module, routed.path), block.dense, self.tokens, keep)

    def tokens(self) -> int:
        return self._tokens

    def _count_tokens(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        hidden = first_tensor(args, kwargs)
        self._tokens = hidden.shape[0] * hidden.shape[1]

    def activations(self, call: int) -> Activations:
        while len(self.passes) <= call:
            self.passes.append(Activations())
        return self.passes[call]


class _Dense:
    def __init__(self, recorder: Recorder, places: list[tuple[Block, int]]) -> None:
        self.recorder = recorder
        self.places = places
        self.calls = 0

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if watching():
            return
        forward_pass, place = divmod(self.calls, len(self.places))
        self.calls += 1
        block, number = self.places[place]
        inputs = first_tensor(args, kwargs).detach()
        inputs = inputs.reshape(-1, inputs.shape[-1])
        if forward_pass == 0 and self.recorder.opening is not None:
            opened = self.recorder.opened.dense
            seen = inputs[self.recorder.opening.to(inputs.device)]
            opened[block.layer] = torch.cat([opened[block.layer], seen], dim=1) if number else seen
        rows = self._chosen(inputs)
        if self.recorder.units is not None:
            start = sum(writer.width for writer in block.dense[:number])
            local = self.recorder.units[block.layer] - start
            rows = rows[:, local[(local >= 0) & (local < block.dense[number].width)].to(rows.device)]
        kept = self.recorder.activations(forward_pass).dense
        kept[block.layer] = torch.cat([kept[block.layer], rows], dim=1) if number else rows

    def _chosen(self, inputs: Tensor) -> Tensor:
        """A copy of the rows that are asked for."""
        if self.recorder.rows is None:
            return inputs.clone()
        return inputs[-1:].clone() if self.recorder.rows == [-1] else inputs[self.recorder.rows]


class _Routed:
    def __init__(self, recorder: Recorder, block: Block, first_expert: int) -> None:
        self.recorder = recorder
        self.block = block
        self.first_expert = first_expert
        self.calls = 0

    def __call__(self, call: RoutedCall) -> None:
        kept = self.recorder.activations(self.calls).routed
        self.calls += 1
        indices = range(call.tokens) if self.recorder.rows is None else self.recorder.rows
        rows = kept.setdefault(self.block.layer, [{} for _ in indices])
        for row, index in zip(rows, indices, strict=True):
            found = call.row(index % call.tokens)
            row.update(
                {
                    self.first_expert + expert: ExpertActivation(record.activation.cpu(), record.weight)
                    for expert, record in found.items()
                }
            )


def parent_of(layer: nn.Module, path: str) -> nn.Module:
    """The module of the layer around the one at ``path``."""
    return layer.get_submodule(path.rpartition(".")[0])


def routed_unit(block: Block, index: int) -> nn.Module:
    """The module of the layer whose output holds what the routed experts write."""
    routed = block.routed[index]
    return call_unit(routed, parent_of(block.module, routed.path))


def require_complete(passes: Sequence[Activations], blocks: Sequence[Block], steps: int) -> None:
    """Raise ``ModelError`` unless each layer was recorded once for each of ``steps`` passes."""
    for block in blocks:
        if block.dense and sum(block.layer in p.dense for p in passes) != steps:
            raise ModelError(
                f"Layer {block.layer} was not called once for each step: this model reuses or skips its layers, "
                "so its neurons cannot be recorded step by step."
            )
