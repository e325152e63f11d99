"""BLEURT by a checkpoint in a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from neuronwise.errors import ModelError
from neuronwise.images import ImageLike
from neuronwise.measure.metrics import ModelMetric
from neuronwise.measure.semantic import opened


class Bleurt:
    """A regression of human ratings on (reference, candidate), read by one encoder (Sellam et al. 2020, §3).

    ``folder`` holds a checkpoint that transformers opens as a sequence classifier of one output, such as
    Elron/bleurt-base-512 on the Hugging Face hub. Raises ``ModelError`` for any other.
    """

    def __init__(self, folder: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.model, self.tokenizer = opened(folder, AutoModelForSequenceClassification, AutoTokenizer)
        if self.model.config.num_labels != 1:
            raise ModelError(
                f"The model in '{folder}' gives {self.model.config.num_labels} outputs, BLEURT one; name a folder with "
                "a BLEURT checkpoint for transformers, such as Elron/bleurt-base-512."
            )

    def __call__(self, candidate: str, references: Sequence[str]) -> float:
        """The best score over references; not bounded, about 0 for unrelated texts and 1 for equal ones."""
        pairs = self.tokenizer(
            list(references), [candidate] * len(references), return_tensors="pt", padding=True, truncation=True
        )
        with torch.no_grad():
            return float(self.model(**pairs).logits[:, 0].max())


@cache
def bleurt(folder: str) -> Bleurt:
    """The checkpoint of a folder, opened once in a process."""
    return Bleurt(folder)


def _scores(folder: str, photo: ImageLike, texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    return [bleurt(folder)(text, those) for text, those in zip(texts, references, strict=True)]


BLEURT = ModelMetric("bleurt", "bleurt", _scores, "Sellam et al., ACL 2020 (2004.04696)")
