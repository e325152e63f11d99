"""Concepts: the nouns of a generated text, each with the tokens that emitted it, by character offsets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from neuronwise.data.naming import Mention, forms_of, mentions, worded
from neuronwise.errors import TargetError
from neuronwise.model.protocols import Tokenizer
from neuronwise.model.taggers import nouns

_WORD = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*")


@dataclass(frozen=True)
class Occurrence:
    """One occurrence of a concept in the text: its characters [start, end) and the tokens that they came from.

    ``positions`` count generated tokens from 0.
    """

    start: int
    end: int
    positions: tuple[int, ...]
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Concept:
    """A word of the output with all its occurrences; the first sub-token of the first one is scored by default."""

    word: str
    occurrences: tuple[Occurrence, ...]

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The tokens of the first occurrence."""
        return self.occurrences[0].token_ids

    @property
    def positions(self) -> tuple[int, ...]:
        """The positions of the first occurrence, counted over generated tokens from 0."""
        return self.occurrences[0].positions


def token_spans(tokenizer: Tokenizer, token_ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """The decoded text of the tokens and the characters [start, end) that each one added.

    Spans come from decoding growing prefixes, so they hold for every tokenizer: leading spaces belong to the token
    that wrote them, a character of several byte tokens belongs to each of them, special tokens are empty spans.
    """
    spans: list[tuple[int, int]] = []
    text, begun = "", 0  # of the last tokens, how many have begun a character that is not whole yet
    for count in range(1, len(token_ids) + 1):
        decoded = tokenizer.decode(
            list(token_ids[:count]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        grown = decoded.rstrip("\ufffd")
        if not grown.startswith(text):  # a byte token changed what came before it: it owns the change
            common = _common_prefix(grown, text)
            spans = [(min(s, common), min(e, common)) for s, e in spans]
            text = text[:common]
        if len(grown) > len(text) and begun:
            spans[-begun:] = [(len(text), len(text) + 1)] * begun
        begun = begun + 1 if len(grown) < len(decoded) else 0
        spans.append((len(text), len(grown)))
        text = grown
    return text, spans


def _common_prefix(left: str, right: str) -> int:
    pairs = zip(left, right, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def concepts_in(tokenizer: Tokenizer, token_ids: Sequence[int], tagger: str = "pattern") -> tuple[Concept, ...]:
    """Every noun of the generated text as a concept; ``tagger`` is one of ``TAGGERS``.

    A noun that is a part of the name of another thing, as "dog" in "hot dog", stands for that whole name.
    """
    text, spans = token_spans(tokenizer, token_ids)
    named = dict.fromkeys(_whole(text, word) for word in nouns(text, tagger))
    found = (_located(text, spans, token_ids, _written(text, word, (word,))) for word in named)
    return tuple(concept for concept in found if concept is not None)


def concept_of(tokenizer: Tokenizer, token_ids: Sequence[int], word: str, known: Sequence[Concept]) -> Concept:
    """Any word or words that the generated text names, by the rule of ``data/naming.py``.

    Singular and plural, and other words for the same thing, count where the text does not have the word itself. Raises
    ``TargetError`` that lists the nouns that do occur.
    """
    text, spans = token_spans(tokenizer, token_ids)
    if not word.strip():
        raise TargetError("The concept is empty; name a word of the caption.")
    concept = _located(text, spans, token_ids, _written(text, word, forms_of(word.strip())) or mentions(text, word))
    if concept is not None:
        return concept
    there = ", ".join(concept.word for concept in known) or "none"
    raise TargetError(
        f"The text {text.strip()!r} does not name {word!r}; its nouns are: {there}. "
        "For a word that the model did not generate, name a target instead of a concept."
    )


def _written(text: str, word: str, forms: Sequence[str]) -> list[Mention]:
    """Where the text names the word by the first of some forms that it has."""
    found = mentions(text, word)
    return next((own for form in forms if (own := [one for one in found if worded(one, form)])), [])


def _whole(text: str, word: str) -> str:
    """The word, or the name that it is a part of wherever it is in the text."""
    at = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    if at is None or mentions(text, word):
        return word
    return next((one.text for one in mentions(text) if one.start <= at.start() and at.end() <= one.end), word)


def _located(
    text: str, spans: list[tuple[int, int]], token_ids: Sequence[int], found: Sequence[Mention]
) -> Concept | None:
    occurrences = []
    for mention in found:
        start, end = mention.start, mention.end
        positions = tuple(k for k, (s, e) in enumerate(spans) if s < end and e > start)
        ids = tuple(int(token_ids[k]) for k in positions)
        pieces = tuple(text[spans[k][0] : spans[k][1]] for k in positions)
        occurrences.append(Occurrence(start, end, positions, ids, pieces))
    return Concept(found[0].text, tuple(occurrences)) if occurrences else None
