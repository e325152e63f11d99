"""What a caption lost and kept when the model was changed: one row a photo."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from neuronwise.answers.naming import names, objects_named
from neuronwise.data.photos import Captioned
from neuronwise.measure.captions import caption_scores, words_of
from neuronwise.measure.metrics import METRICS, ModelMetric
from neuronwise.measure.nouns import hallucination, retained, suppressed
from neuronwise.study.store import Row


def caption_rows(
    photos: Sequence[Captioned],
    before: Sequence[str],
    after: Sequence[str],
    concept: str,
    metrics: Sequence[str],
    models: Sequence[tuple[ModelMetric, str]] = (),
) -> list[Row]:
    """One row a photo with the columns that ``suppression`` lists, from the captions of all of them together.

    CIDEr weighs words by how rare they are among these photos' texts. ``models``: metrics by models, each with its
    folder.
    """
    found = [_words(*texts, concept) for texts in zip(photos, before, after, strict=True)]
    referred = [number for number, photo in enumerate(photos) if photo.captions]
    references = [photos[number].captions for number in referred]
    everywhere = list(range(len(photos)))
    for prefix, texts, against, where in (
        ("to_before", after, [[text] for text in before], everywhere),
        ("to_references", [after[n] for n in referred], references, referred),
        ("to_references_before", [before[n] for n in referred], references, referred),
    ):
        for metric, scores in _scores([photos[n] for n in where], texts, against, metrics, models).items():
            for row in found:
                row[f"{prefix}.{metric}"] = None
            for number, score in zip(where, scores, strict=True):
                found[number][f"{prefix}.{metric}"] = score
    for metric, folder in models:
        if metric.of_photo:
            for row, photo, *texts in zip(found, photos, after, before, strict=True):
                now, then = metric.score(folder, photo.path, texts, [()] * 2)
                row |= {metric.name: now, f"{metric.name}_before": then}
    return found


def _words(photo: Captioned, before: str, after: str, concept: str) -> Row:
    there = set().union(photo.categories(), *(objects_named(caption) for caption in photo.captions))
    now, then = (hallucination([text], [there]) for text in (after, before))
    words = words_of(after).split()
    return {
        "before": before,
        "after": after,
        "unchanged": before == after,
        "named": names(after, concept),
        "suppressed": suppressed(before, after, concept),
        "retained": retained(before, after, concept),
        "mentions": now.mentions,
        "unsupported": now.unsupported,
        "mentions_before": then.mentions,
        "unsupported_before": then.unsupported,
        "length": len(words),
        "repeated": _repeated(words),
    }


def _repeated(words: Sequence[str]) -> float:
    """The share of word pairs that were there before."""
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def _scores(
    photos: Sequence[Captioned],
    texts: Sequence[str],
    against: Sequence[Sequence[str]],
    metrics: Sequence[str],
    models: Sequence[tuple[ModelMetric, str]],
) -> dict[str, list[float]]:
    """One score for each text by each metric that compares with other texts."""
    chosen = [name for name in metrics if METRICS[name].least <= len(texts)]
    found = caption_scores(texts, against, chosen) if chosen and texts else {}
    for metric, folder in models:
        if not metric.of_photo:
            each = zip(photos, texts, against, strict=True)
            found[metric.name] = [metric.score(folder, p.path, [text], [those])[0] for p, text, those in each]
    return found
