"""Prefixes that the model itself wrote: behind them a fact is asked as in the middle of any text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neuronwise.edit.memory.passages import Passage, side_by_side
from neuronwise.model.model import Model

STARTS = ("The", "Therefore", "Because", "I", "You")
AMONG = 5  # the next token is drawn from so many of the likeliest

Lengths = Sequence[tuple[int, int]]  # (tokens of a prefix, how many prefixes)


def contexts(model: Model, lengths: Lengths, seed: int = 0) -> tuple[str, ...]:
    """No prefix and, for each (length, count), ``count`` texts of ``length`` tokens by the model, ". " at their ends.

    As in [ROME] they begin with five words in turn and are drawn from the five likeliest tokens, here with ``seed``.
    They are written once for a model and kept with it, so that all edits of a series use the same.
    """

    def written() -> tuple[str, ...]:
        generator = torch.Generator().manual_seed(seed)
        texts = [text for length, count in lengths for text in _written(model, length, count, generator)]
        return ("", *(f"{text.replace('{', '').replace('}', '')}. " for text in texts))

    return model.memo(("contexts", tuple(map(tuple, lengths)), seed), written)


def _written(model: Model, length: int, count: int, generator: torch.Generator) -> list[str]:
    starts = [STARTS[number % len(STARTS)] for number in range(count)]
    rows = [model.prepare(prompt=start, chat=False, bare=True)[0].input_ids for start in starts]
    while rows and min(map(len, rows)) < length:
        passages = side_by_side(model, [Passage(tuple(row), 0) for row in rows])
        with torch.no_grad():
            last = [passages.last_rows(number, 1) for number in range(len(rows))]
            logits = model.forward(passages.inputs, rows=last)[0].float().cpu()
        if model.image_token_id is not None and model.image_token_id < logits.shape[-1]:
            logits[..., model.image_token_id] = -torch.inf  # a text has no place for an image
        for row, likely in zip(rows, logits, strict=True):
            best = likely.topk(AMONG)
            drawn = torch.multinomial(best.values.softmax(-1), 1, generator=generator)
            if len(row) < length:
                row.append(int(best.indices[drawn]))
    return [model.decode_ids(row) for row in rows]
