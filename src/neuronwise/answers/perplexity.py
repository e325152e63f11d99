"""How well a model predicts a text of any length."""

from __future__ import annotations

import math

from neuronwise.answers.forced import read_forced
from neuronwise.errors import DataError
from neuronwise.model.batches import text_inputs
from neuronwise.model.model import Model

WINDOW = 512  # tokens of one pass
LARGEST = 700  # e to a larger power has no float


def perplexity(model: Model, text: str, window: int = WINDOW) -> float:
    """exp of the mean −log p of every token of a text but its first.

    Each token is predicted behind at least the ``window`` // 2 tokens before it, or all that there are: the text is
    read in windows that overlap by half, shorter where the model has fewer positions. Raises ``DataError`` for a text
    of a single token and ``NonFiniteError`` where the model gives no finite probabilities.
    """
    read = model.prepare(prompt=text, chat=False, bare=True)[0].input_ids[1:]
    if not read:
        raise DataError("The text whose perplexity is measured is a single token; give a longer one.")
    head = {name: value[:, : -len(read)] for name, value in text_inputs(model, text).items()}
    if model.longest is not None:
        window = min(window, model.longest - head["input_ids"].shape[1])
    half = max(window // 2, 1)
    starts = [0, *range(2 * half, len(read), half)]
    asked = [
        (model.extend(head, read[max(start - half, 0) : start]), read[start : start + (half if start else 2 * half)])
        for start in starts
    ]
    readings = read_forced(model, asked)
    total = sum(reading.log_prob * len(ids) for reading, (_, ids) in zip(readings, asked, strict=True))
    return math.exp(min(-total / len(read), LARGEST))
