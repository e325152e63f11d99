"""Texts at which a model's answer ends, such as the ### of Vicuna v0, which are no single token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

if TYPE_CHECKING:
    from neuronwise.model.model import Model

TAIL = 12  # tokens that are looked at after each step; a stopping text is shorter


class StopAtText(StoppingCriteria):
    """Ends a row of a batch when its newest token completes one of the texts; those of the prompt do not count."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self.tokenizer, self.texts = tokenizer, texts

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        tails = input_ids[:, -TAIL:].tolist()
        return torch.tensor([self._completed(tail) for tail in tails], device=input_ids.device)

    def _completed(self, tail: list[int]) -> bool:
        now, before = _decoded(self.tokenizer, tail), _decoded(self.tokenizer, tail[:-1])
        return any(now.count(text) > before.count(text) for text in self.texts)


def stopping_texts(model: Model) -> tuple[str, ...]:
    """The texts at which the model's generation settings say that an answer ends."""
    texts = getattr(getattr(model.module, "generation_config", None), "stop_strings", None) or ()
    return (texts,) if isinstance(texts, str) else tuple(texts)


def stopping(model: Model) -> dict[str, Any]:
    """Keywords for ``generate`` that end at the model's stopping texts; empty where it has none."""
    texts = stopping_texts(model)
    return {"stopping_criteria": StoppingCriteriaList([StopAtText(model.tokenizer, texts)])} if texts else {}


def before_stop(model: Model, ids: list[int]) -> list[int]:
    """Generated tokens up to the first stopping text; a token that holds its beginning is left out."""
    stops = stopping_texts(model)
    text = _decoded(model.tokenizer, ids) if stops else ""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    if not places:
        return ids
    kept = list(ids)
    while kept and len(_decoded(model.tokenizer, kept)) > min(places):
        kept.pop()
    return kept


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
