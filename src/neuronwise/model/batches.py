"""Many prompts in one pass, padded, where the architecture gives what each of them gives alone."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuronwise.model.model import Model

TOKENS = 4096  # of one padded batch, at most
CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}  # difference of log probabilities that rounding explains
COARSE = 0.25  # the same in half precision
SHORT, LONG = "The", "The capital of the old kingdom in the north is"

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Batching:
    """Whether padding on the right (passes) and on the left (generation) leaves every prompt's numbers as alone."""

    right: bool
    left: bool


_KNOWN: weakref.WeakKeyDictionary[Any, Batching] = weakref.WeakKeyDictionary()


def batching(model: Model) -> Batching:
    """Found by trying once, not from a list of architectures: two prompts together against each alone."""
    found = _KNOWN.get(model.module)
    if found is None:
        found = Batching(_agrees(model, _last_rows), _agrees(model, _first_steps))
        _KNOWN[model.module] = found
    return found


def text_inputs(model: Model, prompt: str) -> Inputs:
    """Inputs of a text as it stands, without a chat template; raises ``PromptError`` for one that cannot be read."""
    return model.read(None, prompt, chat=False)[0].inputs


def padded(rows: Sequence[Inputs], side: str, pad: int = 0) -> Inputs:
    """Inputs of single prompts (1, n) as one batch (batch, longest); padding is masked out."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    rows = [{"attention_mask": torch.ones_like(row["input_ids"]), **row} for row in rows]
    return {
        name: torch.cat([_fill(row[name], longest, side, pad if name == "input_ids" else 0) for row in rows])
        for name in rows[0]
    }


def grouped(lengths: Sequence[int], tokens: int = TOKENS) -> list[list[int]]:
    """Indices in batches of similar length, each of at most ``tokens`` with its padding."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not groups or (len(groups[-1]) + 1) * lengths[index] > tokens:
            groups.append([])
        groups[-1].append(index)
    return groups


def stackable(rows: Sequence[Inputs]) -> bool:
    """Whether these inputs hold nothing but one number a token (an image has more)."""
    return all(
        isinstance(value, Tensor) and value.shape == row["input_ids"].shape for row in rows for value in row.values()
    ) and all(row.keys() == rows[0].keys() for row in rows)


def _fill(value: Tensor, longest: int, side: str, number: int) -> Tensor:
    missing = longest - value.shape[1]
    return torch.nn.functional.pad(value, (missing, 0) if side == "left" else (0, missing), value=number)


def _agrees(model: Model, read: Any) -> bool:
    if model.is_encoder_decoder:
        return False
    dtype = next((p.dtype for p in model.module.parameters() if p.is_floating_point()), torch.float32)
    try:
        alone = [text_inputs(model, prompt) for prompt in (SHORT, LONG)]
        if not stackable(alone):
            return False
        with torch.no_grad():
            together = read(model, alone)
            singly = torch.cat([read(model, [row]) for row in alone])
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
        return False
    return bool((together - singly).abs().max() <= CLOSE.get(dtype, COARSE))


def _last_rows(model: Model, rows: Sequence[Inputs]) -> Tensor:
    logits = model.forward(padded(rows, "right"))
    ends = [row["input_ids"].shape[1] - 1 for row in rows]
    return logits[torch.arange(len(rows)), ends].float().log_softmax(-1)


def _first_steps(model: Model, rows: Sequence[Inputs]) -> Tensor:
    settings = model.greedy(2)
    settings.update(min_new_tokens=2, min_length=None, return_dict_in_generate=True, output_logits=True)
    batch = padded(rows, "left", settings.pad_token_id or 0)
    made = model.reader(batch).generate(**model.placed(batch), generation_config=settings)
    return torch.stack(made.logits, 1).float().log_softmax(-1)
