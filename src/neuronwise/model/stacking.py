"""Inputs of single prompts as one batch: which tensors may be put together, and how."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from neuronwise.model.prompt import Inputs

TOKENS = 4096  # of one padded batch, at most


def padded(rows: Sequence[Inputs], side: str, pad: int = 0) -> Inputs:
    """Inputs of single prompts (1, n) as one batch (batch, longest); padding is masked out.

    What has an entry for each token is padded, what has none (an image's tensors) comes one after another.
    """
    longest = max(row["input_ids"].shape[1] for row in rows)
    rows = [{"attention_mask": torch.ones_like(row["input_ids"]), **row} for row in rows]
    return {
        name: torch.cat(
            [
                _fill(row[name], longest, side, pad if name == "input_ids" else 0)
                if _by_token(row, name)
                else row[name]
                for row in rows
            ]
        )
        for name in rows[0]
    }


def layout(row: Inputs) -> Hashable:
    """What inputs have to share so that ``padded`` can put them together; None where it cannot."""
    if any(not value.dim() for value in row.values()):
        return None
    return tuple(
        (name, row[name].dtype, _by_token(row, name), row[name].shape[2 if _by_token(row, name) else 1 :])
        for name in sorted(row)
    )


def grouped(lengths: Sequence[int], tokens: int = TOKENS, most: int | None = None) -> list[list[int]]:
    """Indices in batches of similar length, each of at most ``tokens`` with its padding and of ``most`` members."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not groups or len(groups[-1]) == most or (len(groups[-1]) + 1) * lengths[index] > tokens:
            groups.append([])
        groups[-1].append(index)
    return groups


def stackable(rows: Sequence[Inputs]) -> bool:
    """Whether these inputs hold nothing but one number a token (an image has more)."""
    return all(value.shape == row["input_ids"].shape for row in rows for value in row.values()) and all(
        row.keys() == rows[0].keys() for row in rows
    )


def _by_token(row: Inputs, name: str) -> bool:
    return row[name].shape[:2] == row["input_ids"].shape


def _fill(value: Tensor, longest: int, side: str, number: int) -> Tensor:
    missing = longest - value.shape[1]
    ends = (missing, 0) if side == "left" else (0, missing)
    return torch.nn.functional.pad(value, (*[0] * (2 * value.dim() - 4), *ends), value=number)
