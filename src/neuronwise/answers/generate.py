"""Several prompts continued together where they are read as tensors of the same shapes, photos included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from neuronwise.answers.free import continuations
from neuronwise.model.model import Model


@torch.no_grad()
def generate(model: Model, inputs: Sequence[dict[str, Any]], max_new_tokens: int) -> list[list[int]]:
    """Greedy continuations, tokens up to the end token; nothing is padded.

    One after another where shapes differ, or where rows of a batch cannot be told from the tensors.
    """
    if len(inputs) > 1 and _alike(inputs):
        batch = {name: torch.cat([one[name] for one in inputs]) for name in inputs[0]}
        return continuations(model, batch, max_new_tokens)
    return [continuations(model, dict(one), max_new_tokens)[0] for one in inputs]


def _alike(inputs: Sequence[dict[str, Any]]) -> bool:
    """Whether all hold tensors of one prompt each (first dimension 1), of the same names and shapes."""
    first = inputs[0]
    return all(
        one.keys() == first.keys()
        and all(
            isinstance(value, torch.Tensor) and value.dim() and len(value) == 1 and value.shape == first[name].shape
            for name, value in one.items()
        )
        for one in inputs
    )
