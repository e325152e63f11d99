"""What a score is read from: a target's logit, alone or against other tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.model.closed_form import closed_form
from neuronwise.model.prompt import exact_tokens, target_tokens
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import ALL

if TYPE_CHECKING:
    from neuronwise.model import Model


Contrast = Sequence[str | int] | int | None  # tokens, or how many of the model's own alternatives


def contrasted(model: Model, run: Run, target: Target, contrast: Contrast) -> dict[int, float]:
    """The target's logit, less the mean of those it is contrasted with, as weights of tokens.

    ``contrast``: tokens, or a number k for the model's own top-k alternatives to the target. Raises ``MethodError`` for
    a contrast that names no token, or the target itself.
    """
    others = _contrast_tokens(model, run, target, contrast)
    if target.token_id in others:
        raise MethodError(f"contrast names the target {target.text!r} itself; name another token.")
    weights = {target.token_id: 1.0}
    for token in others:
        weights[token] = weights.get(token, 0.0) - 1.0 / len(others)
    return weights


def above_all(target: Target) -> dict[int, float]:
    """The target's logit less the mean of all logits, as weights: what of a vector is about this token."""
    return {target.token_id: 1.0, ALL: -1.0}


def _contrast_tokens(model: Model, run: Run, target: Target, contrast: Contrast) -> list[int]:
    if contrast is None:
        return []
    if isinstance(contrast, bool | float):
        raise MethodError(f"contrast is {contrast}; name tokens, or a number of alternatives from 1.")
    if isinstance(contrast, int):
        if contrast < 1:
            raise MethodError(f"contrast is {contrast}; name tokens, or a number of alternatives from 1.")
        logits = _predicted(model, run, target.position)
        logits[target.token_id] = -torch.inf
        return logits.topk(min(contrast, len(logits) - 1)).indices.tolist()
    listed = [contrast] if isinstance(contrast, str) else contrast
    if not listed or any(isinstance(token, str) and not token.strip() for token in listed):
        raise MethodError("contrast names no token, or an empty one; name tokens, or a number of alternatives.")
    return [target_tokens(model.tokenizer, model.vocabulary_size, token, "contrast").token_id for token in listed]


def _predicted(model: Model, run: Run, position: int) -> Tensor:
    """(V,) float32: logits at a position, in their order; by no pass where the run holds what the head was given."""
    form = closed_form(model)
    if form is not None and position < len(run.steps) and (stream := run.steps[position].stream) is not None:
        return form.logits(model, stream[0])
    with torch.no_grad():
        return model.forward(run.forced_inputs(), rows=[run.row(position)])[0, 0].float().clone()


def contrast_notes(model: Model, contrast: object) -> list[str]:
    """What a reader must know of contrasted words: those of several tokens count by their first."""
    words = [contrast] if isinstance(contrast, str) else contrast if isinstance(contrast, list | tuple) else []
    tokens = (exact_tokens(model.tokenizer, model.vocabulary_size, word, "contrast") for word in words)
    return [one.note for one in tokens if one.note]
