"""The last position of a sequence under many changes at once; causal scores are made of it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronwise.model.hooks import Args, Hooks, Kwargs, first_output
from neuronwise.model.passes import edit_input, only_rows, returning
from neuronwise.model.prompt import Inputs
from neuronwise.model.weights import dtype_of

if TYPE_CHECKING:
    from neuronwise.model.model import Model

UNABLE = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError)  # of models that keep no cache


def agree(model: Model, found: Tensor, expected: Tensor) -> bool:
    """Whether logits are the same but for rounding in the model's precision."""
    tolerance = 1e-3 if dtype_of(model.module) == torch.float32 else 5e-2
    return bool((found.float() - expected).norm() <= tolerance * expected.norm())


class LastPosition:
    """The last position of a sequence, evaluated many times side by side.

    >>> last = LastPosition(model, run.forced_inputs())
    >>> with edit_input(writer.module, change, within=block.module):  # change (count, positions, width)
    ...     logits = last.evaluate(count, lowest=writer.layer)

    What is done at the last position of a causal model leaves the earlier ones as they are, so these are computed
    once and kept as key-value cache; each evaluation is then one token for each of ``count`` copies, in the layers
    from the lowest changed one upwards. Where a model does not allow that (its cached logits differ from those of a
    whole pass), whole sequences are run instead.
    """

    def __init__(self, model: Model, inputs: Inputs) -> None:
        self.model = model
        self.inputs = inputs
        self.cache: Any = None
        self._layers: list[object] = []  # what each layer returned for one copy; empty where none may be left out
        with torch.inference_mode():
            whole = model.forward(inputs, rows=[-1])[:, -1].float()
        self.logits = whole[0]
        self.cache = self._cached_prefix()
        returned: list[object] = []
        if self.cache is not None:
            with self._watched(returned):
                if not self._agrees(lambda: self.evaluate(2)):  # not every cache can be repeated (linear attention's)
                    self.cache = None
        if self.cache is not None and len({id(block.module) for block in model.blocks}) == len(returned):
            self._layers = returned
            if not self._agrees(lambda: self.evaluate(2, lowest=model.num_layers - 1)):
                self._layers = []  # the last layer takes more from those below than the stream

    def _watched(self, returned: list[object]) -> Hooks:
        def keep(module: object, args: Args, kwargs: Kwargs, output: object) -> None:
            returned.append(_each(output, lambda value: value[:1].clone()))

        hooks = Hooks()
        for block in self.model.blocks:
            hooks.after(block.module, keep)
        return hooks

    def _agrees(self, read: Callable[[], Tensor]) -> bool:
        try:
            return all(agree(self.model, found, self.logits) for found in read())
        except UNABLE:
            return False

    def _cached_prefix(self) -> Any:
        ids = self.inputs["input_ids"]
        if self.model.is_encoder_decoder or ids.shape[1] < 2:
            return None
        length = ids.shape[1]
        prefix = {
            name: value[:, :-1] if value.dim() >= 2 and value.shape[1] == length else value
            for name, value in self.inputs.items()
        }
        try:
            with torch.no_grad(), only_rows(self.model, [-1]):
                cache = self.model.module(**self.model.placed(prefix), use_cache=True).past_key_values
        except UNABLE:
            return None
        return cache if hasattr(cache, "batch_repeat_interleave") else None

    def evaluate(self, count: int, grad: bool = False, lowest: int = 0) -> Tensor:
        """Logits (count, V) float32 at the last position of ``count`` copies, under whatever edits are set around.

        ``lowest`` is the first layer in which any of them acts: those below are not computed again where the model
        allows that.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad() if grad else torch.no_grad())
            stack.enter_context(only_rows(self.model, [-1]))
            if self.cache is None:
                return self._whole(count)
            lowest = lowest if self._layers else 0
            stack.enter_context(returning({
                block.module: lambda kept=kept: _each(kept, lambda value: value.expand(count, *value.shape[1:]))
                for block, kept in zip(self.model.blocks[:lowest], self._layers, strict=False)
            }))  # fmt: skip
            ids = self.inputs["input_ids"].to(self.model.device)
            mask = torch.ones(count, ids.shape[1], dtype=torch.long, device=ids.device)
            output = self.model.module(
                input_ids=ids[:, -1:].expand(count, 1),
                attention_mask=mask,
                past_key_values=self._repeated(count, lowest),
                use_cache=True,
            )
            return output.logits[:, -1].float()

    @cached_property
    def joins(self) -> bool:
        """Whether ``evaluate_joining`` works for this model, found by trying once."""
        tried = dict.fromkeys((0, self.model.num_layers // 2, self.model.num_layers - 1), 1)
        return bool(self._layers) and self._agrees(lambda: self.evaluate_joining(tried))

    def evaluate_joining(self, copies: Mapping[int, int], grad: bool = False) -> Tensor:
        """As ``evaluate``, where ``copies[l]`` copies join at layer l: (all copies, V), those of lower layers first.

        Nothing is computed for a copy below the layer at which it joins; needs ``joins``.
        """
        layers, lowest = self.model.num_layers, min(copies)
        counts = list(accumulate(copies.get(layer, 0) for layer in range(layers)))
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.enable_grad() if grad else torch.no_grad())
            stack.enter_context(only_rows(self.model, [-1]))
            modules = [block.module for block in self.model.blocks]
            below = zip(modules[:lowest], self._layers, strict=False)
            stack.enter_context(returning({module: lambda kept=kept: kept for module, kept in below}))
            for layer, count in copies.items():
                stack.enter_context(edit_input(modules[layer], self._joined(layer, count, layer == lowest)))
            ids = self.inputs["input_ids"].to(self.model.device)
            output = self.model.module(
                input_ids=ids[:, -1:],
                attention_mask=torch.ones_like(ids),
                past_key_values=self._cache_of(counts),
                use_cache=True,
            )
            return output.logits[:, -1].float()

    def _joined(self, layer: int, count: int, first: bool) -> Callable[[Tensor], Tensor]:
        def join(hidden: Tensor) -> Tensor:
            if first:
                return hidden.expand(count, *hidden.shape[1:])
            kept = first_output(self._layers[layer - 1])
            return torch.cat([hidden, kept.to(hidden).expand(count, *kept.shape[1:])])

        return join

    def _repeated(self, count: int, lowest: int) -> Any:
        """A copy of the cache for ``count`` copies of the sequence, which layers below ``lowest`` do not touch."""
        if not lowest or len(self.cache.layers) != self.model.num_layers:
            cache = copy.deepcopy(self.cache)
            if count > 1:
                cache.batch_repeat_interleave(count)
            return cache
        return self._cache_of([count if layer >= lowest else 0 for layer in range(self.model.num_layers)])

    def _cache_of(self, counts: Sequence[int]) -> Any:
        """A copy of the cache with ``counts[l]`` copies of the sequence in layer l; 0: a layer that nobody touches."""
        cache = copy.copy(self.cache)
        cache.layers = [
            copy.deepcopy(layer) if count else layer for layer, count in zip(cache.layers, counts, strict=True)
        ]
        for layer, count in zip(cache.layers, counts, strict=True):
            if count > 1:
                layer.batch_repeat_interleave(count)
        return cache

    def _whole(self, count: int) -> Tensor:
        repeated = {
            name: value.repeat(count, *[1] * (value.dim() - 1)) if value.dim() else value
            for name, value in self.inputs.items()
        }
        output = self.model.reader(repeated)(**self.model.placed(repeated), use_cache=False)
        return output.logits[:, -1].float()


def _each(value: object, change: Callable[[Tensor], Tensor]) -> object:
    """Whatever a layer returns with its tensors changed."""
    if isinstance(value, Tensor):
        return change(value) if value.dim() else value
    if isinstance(value, tuple | list):
        return type(value)(_each(part, change) for part in value)
    return value
