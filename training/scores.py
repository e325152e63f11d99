"""Scores of captions against annotated objects."""

from typing import Any

from neuronwise.answers.naming import objects_named
from neuronwise.data.words import PERSON


def caption_scores(captions: list[str], objects: list[set[str]]) -> dict[str, Any]:
    """Score captions against annotated objects (sets of COCO categories).

    `any`: share naming at least one annotated object; `other`: the same for objects other than persons, of the photos
    that have one; `chair_i`: share of the named objects that are not annotated (Rohrbach et al. 2018, equation 1);
    `chair_s`: share of the captions with at least one such; `recall`: share of the annotated objects named.
    """
    named = [objects_named(caption) for caption in captions]
    pairs = list(zip(named, objects, strict=True))
    others = [(said, there - {PERSON}) for said, there in pairs if there - {PERSON}]
    mentions = sum(len(said) for said in named)
    return {
        "any": sum(bool(said & there) for said, there in pairs) / len(pairs),
        "other": sum(bool(said & there) for said, there in others) / len(others),
        "chair_i": sum(len(said - there) for said, there in pairs) / max(mentions, 1),
        "chair_s": sum(bool(said - there) for said, there in pairs) / len(pairs),
        "recall": sum(len(said & there) for said, there in pairs) / sum(len(there) for _, there in pairs),
        "named_per_caption": mentions / len(pairs),
    }
