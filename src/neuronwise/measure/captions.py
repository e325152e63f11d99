"""Captions against references: the field's overlap metrics, by the libraries that define them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from neuronwise.errors import DataError, MethodError
from neuronwise.measure.metrics import METRICS, Listed, Metric, Scored

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
    found = _scored(captions, references, metrics)
    return {metric.name: [float(x) for x in each[metric.place]] for metric, (_, each) in found}


def corpus_scores(
    captions: Sequence[str], references: Sequence[Sequence[str]], metrics: Sequence[str] | None = None
) -> dict[str, float]:
    """One score for all captions together, as the metrics define it (BLEU counts n-grams over the corpus)."""
    found = _scored(captions, references, metrics)
    return {metric.name: float(total[metric.place]) for metric, (total, _) in found}


def require_metrics(names: Sequence[str]) -> list[Metric]:
    """Metrics by their names; raises ``MethodError`` for an unknown one or one that cannot run here."""
    chosen = [METRICS[name] for name in names]
    for metric in chosen:
        if not metric.runs:
            raise MethodError(
                f"{metric.name} needs the program {metric.program}, which is not installed here; leave {metric.name} "
                "out."
            )
    return chosen


def _scored(
    captions: Sequence[str], references: Sequence[Sequence[str]], names: Sequence[str] | None
) -> list[tuple[Metric, Scored]]:
    """Each metric with what its scorer gave, which several metrics may share."""
    if names is None:
        chosen = [metric for metric in METRICS.values() if metric.runs and metric.least <= len(captions)]
    else:
        chosen = require_metrics(names)
    ready = _ready(captions, references)
    if not captions:
        return []
    scored = {score: score(*ready) for score in dict.fromkeys(metric.score for metric in chosen)}
    return [(metric, scored[metric.score]) for metric in chosen]


def _ready(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Listed, Listed]:
    if len(captions) != len(references):
        raise DataError(f"There are {len(captions)} captions and references for {len(references)}.")
    lacking = [number for number, those in enumerate(references) if not those]
    if lacking:
        raise DataError(f"Caption {lacking[0]} has no reference to compare it with.")
    said = {number: [words_of(caption)] for number, caption in enumerate(captions)}
    return {number: [words_of(one) for one in those] for number, those in enumerate(references)}, said


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


BLEU_1, BLEU_2, BLEU_3, BLEU_4 = (
    Metric(f"bleu-{n}", _bleu, "Papineni et al., BLEU, ACL 2002", place=n - 1) for n in (1, 2, 3, 4)
)
ROUGE_L = Metric("rouge-l", _rouge, "Lin, ROUGE, 2004")
CIDER = Metric("cider", _cider, "Vedantam et al., CIDEr, CVPR 2015 (arXiv 1411.5726)", least=2)
METEOR = Metric("meteor", _meteor, "Banerjee & Lavie, METEOR, 2005", program="java")
