"""Captions against references: the field's overlap metrics, by the libraries that define them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from neuronwise.errors import DataError, MethodError

METRICS = ("bleu-1", "bleu-2", "bleu-3", "bleu-4", "rouge-l", "cider", "meteor")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words_of(caption: str) -> str:
    """A caption as the scorers read it: lower case, words alone, one space between (as COCO's tokenizer leaves it)."""
    return " ".join(_WORD.findall(caption.lower()))


def caption_scores(
    captions: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str] | None = None
) -> dict[str, list[float]]:
    """One score a caption for each metric, in the captions' order; the figure of a corpus is ``corpus_scores``.

    BLEU-1 to 4, ROUGE-L and CIDEr as pycocoevalcap computes them, METEOR by its Java program. CIDEr weighs words by
    how rare they are among all ``references``, so it needs several captions; fewer than two give no CIDEr.
    ``metrics=None``: all that can run here (METEOR needs Java). Raises ``MethodError`` for an unknown metric or one
    that cannot run, and ``DataError`` for a caption without references.
    """
    chosen = _chosen(metrics, len(captions))
    ready = _ready(captions, references)
    scores: dict[str, list[float]] = {}
    for names, scorer in _SCORERS:
        if any(name in chosen for name in names) and captions:
            _, each = scorer(*ready)
            scores |= {name: [float(x) for x in row] for name, row in zip(names, each, strict=True) if name in chosen}
    return scores


def corpus_scores(
    captions: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str] | None = None
) -> dict[str, float]:
    """One score for all captions together, as the metrics define it (BLEU counts n-grams over the corpus)."""
    chosen = _chosen(metrics, len(captions))
    ready = _ready(captions, references)
    scores: dict[str, float] = {}
    for names, scorer in _SCORERS:
        if any(name in chosen for name in names) and captions:
            total, _ = scorer(*ready)
            scores |= {name: float(x) for name, x in zip(names, total, strict=True) if name in chosen}
    return scores


Listed = dict[int, list[str]]
Scored = tuple[Sequence[Any], Sequence[Any]]  # (one number a metric, one row of numbers a metric)


def _bleu(references: Listed, captions: Listed) -> Scored:
    from pycocoevalcap.bleu.bleu import Bleu

    return Bleu(4).compute_score(references, captions, verbose=0)


def _rouge(references: Listed, captions: Listed) -> Scored:
    from pycocoevalcap.rouge.rouge import Rouge

    total, each = Rouge().compute_score(references, captions)
    return [total], [each]


def _cider(references: Listed, captions: Listed) -> Scored:
    from pycocoevalcap.cider.cider import Cider

    total, each = Cider().compute_score(references, captions)
    return [total], [each]


def _meteor(references: Listed, captions: Listed) -> Scored:
    from pycocoevalcap.meteor.meteor import Meteor

    total, each = Meteor().compute_score(references, captions)
    return [total], [each]


_SCORERS: tuple[tuple[tuple[str, ...], Callable[[Listed, Listed], Scored]], ...] = (
    (("bleu-1", "bleu-2", "bleu-3", "bleu-4"), _bleu),
    (("rouge-l",), _rouge),
    (("cider",), _cider),
    (("meteor",), _meteor),
)


def _chosen(metrics: Sequence[str] | None, count: int) -> list[str]:
    java = shutil.which("java") is not None
    if metrics is None:
        return [name for name in METRICS if (name != "meteor" or java) and (name != "cider" or count > 1)]
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise MethodError(f"There is no metric {unknown[0]!r}; the metrics are {', '.join(METRICS)}.")
    if "meteor" in metrics and not java:
        raise MethodError("METEOR is a Java program, and there is no java here; leave meteor out.")
    return list(metrics)


def _ready(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Listed, Listed]:
    if len(captions) != len(references):
        raise DataError(f"There are {len(captions)} captions and references for {len(references)}.")
    lacking = [number for number, those in enumerate(references) if not those]
    if lacking:
        raise DataError(f"Caption {lacking[0]} has no reference to compare it with.")
    said = {number: [words_of(caption)] for number, caption in enumerate(captions)}
    return {number: [words_of(one) for one in those] for number, those in enumerate(references)}, said
