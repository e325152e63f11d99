"""The last position of a sequence under many changes at once; causal scores are made of it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronwise.model.passes import only_rows
from neuronwise.model.prompt import Inputs
from neuronwise.model.weights import dtype_of

if TYPE_CHECKING:
    from neuronwise.model.model import Model


class LastPosition:
    """The last position of a sequence, evaluated many times side by side.

    >>> last = LastPosition(model, run.forced_inputs())
    >>> with edit_input(writer.module, change, within=block.module):  # change (count, positions, width)
    ...     logits = last.evaluate(count)

    What is done at the last position of a causal model leaves the earlier ones as they are, so these are computed
    once and kept as key-value cache; each evaluation is then one token for each of ``count`` copies. Where a model
    does not allow that (its cached logits differ from those of a whole pass), whole sequences are run instead.
    """

    def __init__(self, model: Model, inputs: Inputs) -> None:
        self.model = model
        self.inputs = inputs
        self.cache: Any = None
        with torch.inference_mode():
            whole = model.forward(inputs, rows=[-1])[:, -1].float()
        self.logits = whole[0]
        self.cache = self._cached_prefix()
        if self.cache is not None:
            try:
                cached = self.evaluate(2)  # not every cache can be repeated (linear attention's)
            except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
                self.cache = None
            else:
                tolerance = 1e-3 if dtype_of(model.module) == torch.float32 else 5e-2
                if not bool((cached[0] - self.logits).norm() <= tolerance * self.logits.norm()):
                    self.cache = None

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
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            return None
        return cache if hasattr(cache, "batch_repeat_interleave") else None

    def evaluate(self, count: int, grad: bool = False) -> Tensor:
        """Logits (count, V) float32 at the last position of ``count`` copies, under whatever edits are set around."""
        with torch.enable_grad() if grad else torch.no_grad(), only_rows(self.model, [-1]):
            if self.cache is None:
                return self._whole(count)
            cache = copy.deepcopy(self.cache)
            if count > 1:
                cache.batch_repeat_interleave(count)
            ids = self.inputs["input_ids"].to(self.model.device)
            mask = torch.ones(count, ids.shape[1], dtype=torch.long, device=ids.device)
            output = self.model.module(
                input_ids=ids[:, -1:].expand(count, 1), attention_mask=mask, past_key_values=cache, use_cache=True
            )
            return output.logits[:, -1].float()

    def _whole(self, count: int) -> Tensor:
        repeated = {
            name: value.repeat(count, *[1] * (value.dim() - 1)) if value.dim() else value
            for name, value in self.inputs.items()
        }
        output = self.model.reader(repeated)(**self.model.placed(repeated), use_cache=False)
        return output.logits[:, -1].float()
