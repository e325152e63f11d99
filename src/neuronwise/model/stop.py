"""Texts at which a model's answer ends, such as the ### of Vicuna v0, which are no single token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import StoppingCriteria, StoppingCriteriaList

from neuronwise.model.protocols import Tokenizer

TAIL = 12  # tokens that are looked at after each step; a stopping text is shorter


class StopAtText(StoppingCriteria):
    """Ends a row of a batch when its newest token completes one of the texts; those of the prompt do not count."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        self.tokenizer, self.texts = tokenizer, texts

    def __call__(  # type: ignore[override]
        self, input_ids: Tensor, scores: Tensor | None, **kwargs: object
    ) -> Tensor:
        tails = input_ids[:, -TAIL:].tolist()
        return torch.tensor([self._completed(tail) for tail in tails], device=input_ids.device)

    def _completed(self, tail: list[int]) -> bool:
        now, before = _decoded(self.tokenizer, tail), _decoded(self.tokenizer, tail[:-1])
        return any(now.count(text) > before.count(text) for text in self.texts)


@dataclass(frozen=True)
class StoppingTexts:
    """The texts at which a model's generation settings say that an answer ends; often none."""

    tokenizer: Tokenizer
    texts: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module, tokenizer: Tokenizer) -> StoppingTexts:
        """The texts at which a model's generation settings end an answer."""
        texts = getattr(getattr(module, "generation_config", None), "stop_strings", None) or ()
        return cls(tokenizer, (texts,) if isinstance(texts, str) else tuple(texts))

    @property
    def criteria(self) -> dict[str, StoppingCriteriaList]:
        """Keywords for ``generate`` that end there; empty where there are no such texts."""
        if not self.texts:
            return {}
        return {"stopping_criteria": StoppingCriteriaList([StopAtText(self.tokenizer, self.texts)])}

    def before(self, ids: list[int]) -> list[int]:
        """Generated tokens up to the first stopping text; a token that holds its beginning is left out."""
        text = _decoded(self.tokenizer, ids) if self.texts else ""
        places = [place for stop in self.texts if (place := text.find(stop)) >= 0]
        if not places:
            return ids
        kept = list(ids)
        while kept and len(_decoded(self.tokenizer, kept)) > min(places):
            kept.pop()
        return kept


def _decoded(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
