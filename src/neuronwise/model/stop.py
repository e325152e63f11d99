"""Texts at which a model's answer ends, such as the ### of Vicuna v0, which are no single token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase, StoppingCriteriaList, StopStringCriteria


@dataclass(frozen=True)
class StoppingTexts:
    """The texts at which a model's generation settings say that an answer ends; often none."""

    tokenizer: PreTrainedTokenizerBase
    texts: tuple[str, ...]

    @classmethod
    def of(cls, module: nn.Module, tokenizer: PreTrainedTokenizerBase) -> StoppingTexts:
        """The texts at which a model's generation settings end an answer."""
        texts = getattr(getattr(module, "generation_config", None), "stop_strings", None) or ()
        return cls(tokenizer, (texts,) if isinstance(texts, str) else tuple(texts))

    @property
    def criteria(self) -> dict[str, StoppingCriteriaList]:
        """Keywords for ``generate`` that end there; empty where there are no such texts."""
        if not self.texts:
            return {}
        return {"stopping_criteria": StoppingCriteriaList([StopStringCriteria(self.tokenizer, list(self.texts))])}

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


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))
