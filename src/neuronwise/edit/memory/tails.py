"""Passages from the subject on: what precedes it is read once and kept as key-value cache."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from neuronwise.edit.memory.passages import Passage, Passages, side_by_side
from neuronwise.model.hooks import Args, Hooks, Kwargs
from neuronwise.model.model import Model
from neuronwise.model.passes import only_rows
from neuronwise.model.weights import dtype_of

Cache = Any  # transformers' caches have no common type
CANNOT = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, NotImplementedError)


@contextlib.contextmanager
def from_subject(model: Model, passages: Sequence[Passage]) -> Iterator[Passages]:
    """A batch that gives, within the body, the same as the whole passages at their subjects and behind.

    A vector added at the subject changes nothing before it, so only the tails need to be computed again and again.
    Where a model does not allow that (its logits with cache differ from those of a whole pass), it is the batch of
    the whole passages.
    """
    whole = side_by_side(model, passages)
    with contextlib.ExitStack() as stack:
        yield _tails(model, passages, whole, stack) or whole


def _tails(model: Model, passages: Sequence[Passage], whole: Passages, stack: contextlib.ExitStack) -> Passages | None:
    """The subjects' last tokens share one column: padding is left of what precedes them and right of the tails."""
    column = max(passage.subject for passage in passages)
    if column == 0:
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
    tails = Passages(after, torch.zeros(len(passages), dtype=torch.long), lengths)
    some_begin_there = min(passage.subject for passage in passages) == 0  # nothing precedes these: rows of padding
    try:
        with torch.no_grad(), only_rows(model, []):
            cache = model.module(**model.placed(before), use_cache=True).past_key_values
        if cache is None or not model.memo(("tails", some_begin_there), lambda: _agree(model, whole, tails, cache)):
            return None
    except CANNOT:
        return None
    stack.enter_context(_read_after(model, cache))
    return tails


@contextlib.contextmanager
def _read_after(model: Model, cache: Cache) -> Iterator[None]:
    """Every pass of the body goes on from a copy of ``cache``."""

    def before(module: nn.Module, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        return args, {**kwargs, "past_key_values": _copied(cache)}

    with Hooks() as hooks:
        hooks.before(model.module, before)
        yield


def _copied(cache: Cache) -> Cache:
    """A cache of its own to grow: where growing puts new tensors in the place of the old, these need no copy."""
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return copy.deepcopy(cache)
    found = copy.copy(cache)
    found.layers = [copy.copy(layer) for layer in cache.layers]
    return found


def _agree(model: Model, whole: Passages, tails: Passages, cache: Cache) -> bool:
    """Whether the logits behind each passage are those of a pass without cache."""
    with torch.no_grad():
        long = _last(model, whole)
        with _read_after(model, cache):
            short = _last(model, tails)
    tolerance = 1e-3 if dtype_of(model.module) == torch.float32 else 5e-2
    return bool(((short - long).norm(dim=1) <= tolerance * long.norm(dim=1)).all())


def _last(model: Model, passages: Passages) -> Tensor:
    rows = [passages.last_rows(item, 1) for item in range(len(passages))]
    return model.forward(passages.inputs, rows=rows)[0].float()
