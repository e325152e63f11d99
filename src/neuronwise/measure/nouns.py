"""Captions by the nouns they say: suppression, retention, and mentions that nothing on a photo supports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from neuronwise.answers.naming import mentions, names, objects_named
from neuronwise.model.taggers import nouns


@cache
def nouns_of(caption: str) -> frozenset[str]:
    """The nouns of a caption, lower case, plurals as their singular."""
    return frozenset(map(_singular, nouns(caption)))


def _singular(noun: str) -> str:
    from textblob.en.inflect import singularize  # type: ignore[import-untyped]

    return singularize(noun.lower())


def suppressed(before: str, after: str, concept: str) -> bool | None:
    """Whether a concept that was named is no longer; None when it was not named before ([2S] §6)."""
    return None if not names(before, concept) else not names(after, concept)


def retained(before: str, after: str, concept: str) -> float | None:
    """The share of the other nouns before that are still there; None when there were none ([2S] §6).

    A noun of the concept's own name is not another one: neither "traffic" nor "light" beside "traffic light".
    """
    own = {_singular(word) for mention in mentions(before, concept) for word in re.findall(r"\w+", mention.text)}
    others = {noun for noun in nouns_of(before) - own if not names(noun, concept)}
    return len(others & nouns_of(after)) / len(others) if others else None


@dataclass(frozen=True)
class Hallucination:
    """CHAIR ([Rohrbach et al. 2018]): of all categories named, and of all captions, the share unsupported."""

    mentions: int
    unsupported: int
    captions: int
    captions_with: int

    @property
    def instance(self) -> float | None:
        """CHAIR-i: unsupported mentions / mentions."""
        return self.unsupported / self.mentions if self.mentions else None

    @property
    def sentence(self) -> float | None:
        """CHAIR-s: captions with an unsupported mention / captions."""
        return self.captions_with / self.captions if self.captions else None


def hallucination(captions: Sequence[str], there: Sequence[Iterable[str]]) -> Hallucination:
    """CHAIR over captions and the COCO categories that are on each photo (annotated, or named by its references)."""
    named = [objects_named(caption) for caption in captions]
    extra = [mentioned - set(seen) for mentioned, seen in zip(named, there, strict=True)]
    return Hallucination(sum(map(len, named)), sum(map(len, extra)), len(captions), sum(bool(one) for one in extra))
