"""Passages from the subject on: what stands before it is read once and kept as key-value cache."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from neuronwise.edit.memory.passages import Batch, Passage, batched
from neuronwise.model.hooks import Hooks
from neuronwise.model.model import Model

CANNOT = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError)


@contextlib.contextmanager
def from_subject(model: Model, passages: Sequence[Passage]) -> Iterator[Batch]:
    """A batch that gives, within the body, the same as the whole passages at their subjects and behind.

    A vector added at the subject changes nothing before it, so only the tails need to be computed again and again.
    Where a model does not allow that (its logits with cache differ from those of a whole pass), it is the batch of
    the whole passages.
    """
    whole = batched(model, passages)
    with Hooks() as hooks:
        yield _tails(model, passages, whole, hooks) or whole


def _tails(model: Model, passages: Sequence[Passage], whole: Batch, hooks: Hooks) -> Batch | None:
    """The subjects' last tokens stand in one column: padding is left of what precedes them and right of the tails."""
    column = max(passage.subject for passage in passages)
    if column == 0:
        return None
    alone = min(passage.subject for passage in passages) == 0
    proved = model.__dict__.setdefault("_tails", {})
    if proved.get(alone) is False:
        return None
    starts = [column - passage.subject for passage in passages]
    width = max(start + len(passage.ids) for start, passage in zip(starts, passages, strict=True))
    ids = whole.inputs["input_ids"].new_full((len(passages), width), int(whole.inputs["input_ids"][0, 0]))
    mask = torch.zeros_like(ids)
    for row, (start, passage) in enumerate(zip(starts, passages, strict=True)):
        ids[row, start : start + len(passage.ids)] = torch.tensor(passage.ids)
        mask[row, start : start + len(passage.ids)] = 1
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    before = {"input_ids": ids[:, :column], "attention_mask": mask[:, :column], "position_ids": positions[:, :column]}
    after = {"input_ids": ids[:, column:], "attention_mask": mask, "position_ids": positions[:, column:]}
    lengths = tuple(len(passage.ids) - passage.subject for passage in passages)
    tails = Batch(after, torch.zeros(len(passages), dtype=torch.long), lengths)
    try:
        with torch.no_grad(), model.only_rows([]):
            cache = model.module(**model.placed(before), use_cache=True).past_key_values
        if alone not in proved:
            proved[alone] = cache is not None and _agree(model, whole, tails, cache)
    except CANNOT:
        proved[alone] = False
    if not proved[alone]:
        return None
    hooks.before(model.module, _with(cache))
    return tails


def _with(cache: Any) -> Any:
    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "past_key_values": _copied(cache)}

    return before


def _copied(cache: Any) -> Any:
    """A cache of its own to grow: where growing puts new tensors in the place of the old, these need no copy."""
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return copy.deepcopy(cache)
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    return found


def _agree(model: Model, whole: Batch, tails: Batch, cache: Any) -> bool:
    """Whether the logits behind each passage are those of a pass without cache."""
    with torch.no_grad(), Hooks() as hooks:
        long = _last(model.forward(whole.inputs), whole)
        hooks.before(model.module, _with(cache))
        short = _last(model.forward(tails.inputs), tails)
    tolerance = 1e-3 if next(model.module.parameters()).dtype == torch.float32 else 5e-2
    return bool(((short - long).norm(dim=1) <= tolerance * long.norm(dim=1)).all())


def _last(logits: Tensor, batch: Batch) -> Tensor:
    return logits[torch.arange(len(batch)), torch.tensor(batch.lengths) - 1].float()
