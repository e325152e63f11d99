"""Words of a caption that a list has: a metric with a "model" of its own, here a file of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from neuronwise.images import ImageLike
from neuronwise.measure.metrics import ModelMetric


def listed(folder: str, photo: ImageLike, texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The share of each text's words that ``words.txt`` in the folder has."""
    known = set(Path(folder, "words.txt").read_text(encoding="utf-8").split())
    split = [text.lower().split() for text in texts]
    return [sum(word in known for word in words) / max(len(words), 1) for words in split]


METRIC = ModelMetric("listed-words", "words", listed, source="our choice")
