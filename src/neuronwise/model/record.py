"""Recording activations during forward passes: only the rows and units asked for, never all hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError
from neuronwise.model.activations import Activations
from neuronwise.model.blocks import Block
from neuronwise.model.experts import RoutedCall, record_routed
from neuronwise.model.hooks import Args, Hooks, Kwargs, first_tensor
from neuronwise.model.passes import Rows, spots
from neuronwise.model.products import watching
from neuronwise.model.writers import Writer


class Recorder:
    """Records the inputs of W_down (the activations) in every forward pass inside the body.

    ``rows`` are positions of the pass (negative ones count from its end), ``None`` for all; in a batch of ``sequences``
    the same ones of each, or one list for each sequence, recorded one sequence after another. ``units`` restricts the
    dense neurons of a layer (and drops layers not named). One ``Activations`` for each pass is in ``passes``, complete
    once the body is left; with ``final_norm`` it holds what that was given too. ``opening`` names rows of the first
    pass whose dense activations are kept besides, on the model's device, in ``opened``. ``tokens``: how many there are
    in a pass of a part of the model alone.

    >>> with Recorder(model.blocks) as recorder:
    ...     model.module.generate(...)
    >>> recorder.passes[k].dense[l]     # the last position's activations at step k
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        rows: Rows | None = (-1,),
        units: Mapping[int, Tensor] | None = None,
        opening: Tensor | None = None,
        tokens: int = 0,
        sequences: int = 1,
        final_norm: nn.Module | None = None,
    ) -> None:
        self.blocks = [b for b in blocks if units is None or b.layer in units]
        self._rows = None if rows is None else spots(rows, sequences)
        self._sequences = len(rows) if rows and not isinstance(rows[0], int) else sequences
        self.units = units
        self.opening = opening
        self.final_norm = final_norm
        self._streams: list[Tensor] = []
        self.opened = Activations()
        self.passes: list[Activations] = []
        self._hooks = Hooks()
        self._tokens = tokens

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
        if len(self._streams) == len(self.passes):  # else it is called more than once in a pass
            for recorded, stream in zip(self.passes, self._streams, strict=True):
                recorded.stream = stream.cpu()

    def _register(self) -> None:
        # One module may serve several layers (Zamba shares its feed-forward block): its calls within a pass come in
        # the layers' order.
        served: dict[nn.Module, list[Writer]] = {}
        for block in self.blocks:
            for writer in block.dense:
                served.setdefault(writer.module, []).append(writer)
        for module, writers in served.items():
            self._hooks.before(module, _Dense(self, writers))
        if self.final_norm is not None:
            self._hooks.before(self.final_norm, self._keep_stream)
        for block in self.blocks:
            if block.experts:
                self._hooks.before(block.module, self._count_tokens)
            for experts in block.experts:
                record_routed(self._hooks, experts, block.writers, self.tokens, _Routed(self))

    def tokens(self) -> int:
        """The number of tokens of the pass under way."""
        return self._tokens

    def rows(self, count: int) -> list[int] | None:
        """Which of a pass's ``count`` rows, those of all sequences one after another, are recorded; None for all."""
        if self._rows is None:
            return None
        length = count // self._sequences
        return [sequence * length + (row if row >= 0 else length + row) for sequence, row in self._rows]

    def chosen(self, inputs: Tensor) -> Tensor:
        """A copy of the rows that are asked for of (…, n)."""
        inputs = inputs.detach().reshape(-1, inputs.shape[-1])
        count = len(inputs)
        rows = self.rows(count)
        if rows is None or (len(rows) == count and rows == list(range(count))):
            return inputs.clone()
        return inputs[-1:].clone() if rows == [count - 1] else inputs[rows]

    def _keep_stream(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        self._streams.append(self.chosen(first_tensor(args, kwargs)))

    def _count_tokens(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        hidden = first_tensor(args, kwargs)
        self._tokens = hidden.shape[0] * hidden.shape[1]

    def activations(self, call: int) -> Activations:
        """The activations of pass number ``call``."""
        while len(self.passes) <= call:
            self.passes.append(Activations())
        return self.passes[call]


class _Dense:
    def __init__(self, recorder: Recorder, writers: Sequence[Writer]) -> None:
        self.recorder = recorder
        self.writers = writers
        self.calls = 0

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if watching():
            return
        forward_pass, place = divmod(self.calls, len(self.writers))
        self.calls += 1
        writer = self.writers[place]
        inputs = first_tensor(args, kwargs)
        if forward_pass == 0 and self.recorder.opening is not None:
            seen = inputs.detach().reshape(-1, inputs.shape[-1])[self.recorder.opening.to(inputs.device)]
            _append(self.recorder.opened.dense, writer, seen)
        rows = self.recorder.chosen(inputs)
        if self.recorder.units is not None:
            local = self.recorder.units[writer.layer] - writer.first
            rows = rows[:, local[(local >= 0) & (local < writer.width)].to(rows.device)]
        _append(self.recorder.activations(forward_pass).dense, writer, rows)


def _append(kept: dict[int, Tensor], writer: Writer, rows: Tensor) -> None:
    """A layer's dense writers are called in the order of their units."""
    kept[writer.layer] = torch.cat([kept[writer.layer], rows], dim=1) if writer.first else rows


class _Routed:
    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.calls = 0

    def __call__(self, call: RoutedCall) -> None:
        kept = self.recorder.activations(self.calls).routed
        self.calls += 1
        chosen = self.recorder.rows(call.tokens)
        indices = range(call.tokens) if chosen is None else chosen
        rows = kept.setdefault(call.experts.layer, [{} for _ in indices])
        for row, index in zip(rows, indices, strict=True):
            row.update({expert: record.cpu() for expert, record in call.row(index).items()})


def require_complete(passes: Sequence[Activations], blocks: Sequence[Block], steps: int) -> None:
    """Raise ``ModelError`` unless each layer was recorded once for each of ``steps`` passes."""
    for block in blocks:
        if block.dense and sum(block.layer in p.dense for p in passes) != steps:
            raise ModelError(
                f"Layer {block.layer} was not called once for each step: this model reuses or skips its layers, "
                "so its neurons cannot be recorded step by step."
            )
