"""Metrics that need a model of their own, from a local folder: BERTScore, a mover's score, CLIPScore."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuronwise.errors import DataError, ModelError
from neuronwise.images import ImageLike, open_image
from neuronwise.measure.metrics import ModelMetric


class Embedder:
    """Contextual embeddings of tokens by an encoder (BERT and its kin) in a local folder; ``layer`` counts from 0.

    Layer 0 is the embeddings, -1 the last. BERTScore's authors chose layers per model; where none is known the last
    but a quarter of the depth is taken, as theirs mostly lie (our choice).
    """

    def __init__(self, folder: str | os.PathLike[str], layer: int | None = None) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.model, self.tokenizer = opened(folder, AutoModel, AutoTokenizer)
        depth = self.model.config.num_hidden_layers
        self.layer = depth - depth // 4 if layer is None else layer

    def __call__(self, text: str) -> tuple[Tensor, list[int]]:
        """(tokens, d) embeddings of unit length and the tokens' ids, special tokens left out."""
        encoded = self.tokenizer(text, return_tensors="pt", truncation=True, return_special_tokens_mask=True)
        special = encoded.pop("special_tokens_mask")[0].bool()
        with torch.no_grad():
            hidden = self.model(**encoded, output_hidden_states=True).hidden_states[self.layer][0]
        return torch.nn.functional.normalize(hidden[~special].float(), dim=-1), encoded["input_ids"][0][
            ~special
        ].tolist()


def bert_score(embedder: Embedder, caption: str, references: Sequence[str]) -> float:
    """The best F1 over references of greedily matched cosines (Zhang et al. 2020, eq. 1 to 3), without rescaling.

    0 for a caption or reference without a token.
    """
    said, _ = embedder(caption)
    return max((_f1(said, embedder(reference)[0]) for reference in references), default=0.0)


def _f1(said: Tensor, meant: Tensor) -> float:
    if not len(said) or not len(meant):
        return 0.0
    cosines = said @ meant.T
    precision, recall = float(cosines.amax(1).mean()), float(cosines.amax(0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def mover_score(embedder: Embedder, caption: str, references: Sequence[str]) -> float:
    """1 − the earth mover's distance between two texts' embeddings, best over references.

    After Zhao et al. 2019's unigram MoverScore, with equal weights for all tokens in place of their inverse document
    frequencies (our choice: a single caption has no corpus), and cosine distance / 2, so that scores lie in [0, 1].
    """
    said, _ = embedder(caption)
    return max((1 - _moved(said, embedder(reference)[0]) for reference in references), default=0.0)


def _moved(said: Tensor, meant: Tensor) -> float:
    from scipy.optimize import linprog

    rows, columns = len(said), len(meant)
    if not rows or not columns:
        return 1.0
    cost = ((1 - said @ meant.T) / 2).double().numpy()
    leaves = np.kron(np.eye(rows), np.ones(columns))
    arrives = np.tile(np.eye(columns), rows)
    masses = np.concatenate([np.full(rows, 1 / rows), np.full(columns, 1 / columns)])
    return float(linprog(cost.ravel(), A_eq=np.vstack([leaves, arrives]), b_eq=masses, method="highs").fun)


class ClipScorer:
    """CLIPScore by a CLIP model in a local folder: 2.5 · max(cos(image, text), 0) (Hessel et al. 2021, eq. 1)."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        from transformers import AutoModel, AutoProcessor

        self.model, self.processor = opened(folder, AutoModel, AutoProcessor)
        if not hasattr(self.model, "get_image_features"):
            raise ModelError(f"The model in '{folder}' does not embed images; CLIPScore needs a CLIP.")

    def __call__(self, image: ImageLike, captions: Sequence[str]) -> list[float]:
        """One score a caption; the captions are given as they are (the paper's "A photo depicts" is the caller's)."""
        inputs = self.processor(
            text=list(captions), images=open_image(image), return_tensors="pt", padding=True, truncation=True
        )
        with torch.no_grad():
            output = self.model(**inputs)
        seen = torch.nn.functional.normalize(output.image_embeds.float(), dim=-1)
        said = torch.nn.functional.normalize(output.text_embeds.float(), dim=-1)
        return (2.5 * (said @ seen.T)[:, 0].clamp_min(0)).tolist()


def opened(folder: str | os.PathLike[str], model: Any, processor: Any) -> tuple[Any, Any]:
    """A model and its processor from a local folder; raises ``DataError`` and ``ModelError`` where there is none."""
    if not (Path(folder) / "config.json").is_file():
        raise DataError(f"'{folder}' is not a model's folder; name one that holds its config.json and weights.")
    try:
        return model.from_pretrained(folder, local_files_only=True).eval(), processor.from_pretrained(
            folder, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"The model in '{folder}' cannot be opened: {str(error).splitlines()[0]}") from error


@cache
def embedder(folder: str) -> Embedder:
    """The encoder of a folder, opened once in a process."""
    return Embedder(folder)


@cache
def clip_scorer(folder: str) -> ClipScorer:
    """The CLIP of a folder, opened once in a process."""
    return ClipScorer(folder)


def _by_bert(
    score: Callable[[Embedder, str, Sequence[str]], float],
    folder: str,
    photo: ImageLike,
    texts: Sequence[str],
    references: Sequence[Sequence[str]],
) -> list[float]:
    opened = embedder(folder)
    return [score(opened, text, those) for text, those in zip(texts, references, strict=True)]


def _by_clip(folder: str, photo: ImageLike, texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    return clip_scorer(folder)(photo, texts)


CLIPSCORE = ModelMetric("clipscore", "clip", _by_clip, "Hessel et al., EMNLP 2021 (2104.08718)", of_photo=True)
BERTSCORE = ModelMetric("bertscore", "bert", partial(_by_bert, bert_score), "Zhang et al., ICLR 2020 (1904.09675)")
MOVER_SCORE = ModelMetric(
    "mover_score", "bert", partial(_by_bert, mover_score), "after Zhao et al., EMNLP 2019 (1909.02622)"
)
