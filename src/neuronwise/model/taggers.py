"""Noun taggers: which words of a text are its nouns."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from neuronwise.data.scripts import whole_word
from neuronwise.errors import TargetError, reason
from neuronwise.files import read_bytes
from neuronwise.registry import Registry

Tagger = Callable[..., list[str]]
"""Gives the distinct nouns of a text, in order, as they are written; what follows a colon is its second argument."""

TAGGERS: Registry[Tagger] = Registry(
    "noun tagger",
    {
        "pattern": "neuronwise.model.taggers:pattern",
        "textblob": "neuronwise.model.taggers:pattern",
        "words": "neuronwise.model.taggers:words",
        "hanta": "neuronwise.model.taggers:hanta",
        "spacy": "neuronwise.model.taggers:spacy",
    },
    kind="collections.abc:Callable",
    group="neuronwise.taggers",
    error=TargetError,
)
_BARE_VERBS = ("VB", "VBP")
_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


def nouns(text: str, tagger: str = "pattern") -> list[str]:
    """The distinct nouns of a text, in order, as they are written.

    ``tagger`` is one of ``TAGGERS``: "pattern" or "textblob" for English, "hanta" for German, and for any language
    "words:FILE" (one word a line) or "spacy:MODEL". Raises ``TargetError`` for one that is not installed.
    """
    name, _, option = tagger.partition(":")
    needed = len(inspect.signature(TAGGERS[name]).parameters) - 1
    if needed != bool(option):
        raise TargetError(f"The noun tagger is {name + ':…' if needed else repr(name)}, not {tagger!r}.")
    return TAGGERS[name](text, option) if option else TAGGERS[name](text)


def pattern(text: str) -> list[str]:
    """English nouns by TextBlob's PatternTagger, which takes "bear" and "orange" for a verb and an adjective always."""
    seen: dict[str, str] = {}
    tagged = [*_pattern_tagger()(text, tokenize=True)]
    for number, (word, tag) in enumerate(tagged):
        if (tag.startswith("NN") or _ends_a_phrase(tagged, number)) and _WORD.fullmatch(word) and len(word) > 1:
            seen.setdefault(word.lower(), word)
    return list(seen.values())


def _ends_a_phrase(tagged: list[tuple[str, str]], number: int) -> bool:
    """Whether a verb follows an article and adjectives ("a brown bear"), or an adjective an article ("an orange").

    An adjective may yet belong to a noun behind it ("a red, white and blue kite"); then it ends nothing.
    """
    tag, (following, after) = tagged[number][1], tagged[number + 1] if number + 1 < len(tagged) else (".", ".")
    before = number - 1
    while before >= 0 and tagged[before][1] == "JJ" and tag in _BARE_VERBS:
        before -= 1
    if before < 0 or tagged[before][0].lower() not in ("a", "an", "the"):
        return False
    if tag in _BARE_VERBS:
        return not after.startswith("NN") and following not in ("up", "down", "off", "out")  # "a close up"
    alone = tagged[before][0].lower() != "the" and tagged[number][0].lower() not in ("few", "little")
    return tag == "JJ" and alone and after in (".", "IN", "VBZ")


@functools.lru_cache(maxsize=1)
def _pattern_tagger() -> Callable[..., list[tuple[str, str]]]:
    from textblob.en.taggers import PatternTagger

    return PatternTagger().tag


def words(text: str, file: str) -> list[str]:
    """The words of a file, one a line, that a text has, also where words are not set apart; letters of any case."""
    spans = {(at.start(), at.end()) for word in _words_of(file) for at in _places(text, word)}
    kept: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=lambda span: (span[0] - span[1], span)):  # the longest first
        if all(end <= first or start >= after for first, after in kept):
            kept.append((start, end))
    seen: dict[str, str] = {}
    for start, end in sorted(kept):
        seen.setdefault(text[start:end].casefold(), text[start:end])
    return list(seen.values())


def _places(text: str, word: str) -> Iterator[re.Match[str]]:
    return re.finditer(whole_word(re.escape(word)), text, re.IGNORECASE)


@functools.lru_cache(maxsize=4)
def _words_of(file: str) -> tuple[str, ...]:
    try:
        lines = read_bytes(file).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise TargetError(f"The list of words '{file}' cannot be read: {reason(error)}.") from error
    return tuple({line.strip() for line in lines} - {""})


def hanta(text: str) -> list[str]:
    """German nouns by HanTa, whose lexicon comes with it."""
    tagger = _hanta()
    tagged = tagger.tag_sent(_WORD.findall(text))
    return list(dict.fromkeys(word for word, _, tag in tagged if tag in ("NN", "NE")))


def spacy(text: str, model: str) -> list[str]:
    """Nouns by an installed model of spaCy, such as "spacy:fr_core_news_sm"."""
    return list(dict.fromkeys(token.text for token in _spacy(model)(text) if token.pos_ in ("NOUN", "PROPN")))


@functools.lru_cache(maxsize=1)
def _hanta() -> Any:
    try:
        tagger = import_module("HanTa.HanoverTagger")
    except ImportError as error:
        raise TargetError("The noun tagger 'hanta' needs HanTa: pip install HanTa.") from error
    return tagger.HanoverTagger("morphmodel_ger.pgz")


@functools.lru_cache(maxsize=2)
def _spacy(model: str) -> Any:
    try:
        return import_module("spacy").load(model)
    except (ImportError, OSError) as error:
        raise TargetError(f"The noun tagger 'spacy:{model}' needs spaCy and its model {model!r} installed.") from error
