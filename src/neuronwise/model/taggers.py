"""Noun taggers: which words of a text are its nouns."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from neuronwise.errors import TargetError
from neuronwise.registry import Registry

Tagger = Callable[[str], list[str]]
"""Gives the distinct nouns of a text, in order, as they are written."""

TAGGERS: Registry[Tagger] = Registry(
    "noun tagger", {"pattern": "neuronwise.model.taggers:pattern"}, group="neuronwise.taggers", error=TargetError
)
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def nouns(text: str, tagger: str = "pattern") -> list[str]:
    """The distinct nouns of a text, in order, as they are written; ``tagger`` is one of ``TAGGERS``."""
    return TAGGERS[tagger](text)


def pattern(text: str) -> list[str]:
    """English nouns by TextBlob's PatternTagger."""
    seen: dict[str, str] = {}
    for word, tag in _pattern_tagger()(text, tokenize=True):
        if tag.startswith("NN") and _WORD.fullmatch(word) and len(word) > 1:
            seen.setdefault(word.lower(), word)
    return list(seen.values())


@functools.lru_cache(maxsize=1)
def _pattern_tagger() -> Callable[..., list[tuple[str, str]]]:
    from textblob.en.taggers import PatternTagger

    return PatternTagger().tag
