"""Concepts: the nouns of a generated text, each with the tokens that emitted it, by character offsets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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
    that wrote them, a character of several byte tokens belongs to the one that completed it, special tokens and
    unfinished bytes are empty spans.
    """
    spans, text = [], ""
    for count in range(1, len(token_ids) + 1):
        grown = tokenizer.decode(
            list(token_ids[:count]), skip_special_tokens=True, clean_up_tokenization_spaces=False
        ).rstrip("\ufffd")
        if not grown.startswith(text):  # a byte token changed what came before it: it owns the change
            common = _common_prefix(grown, text)
            spans = [(min(s, common), min(e, common)) for s, e in spans]
            text = text[:common]
        spans.append((len(text), len(grown)))
        text = grown
    return text, spans


def _common_prefix(left: str, right: str) -> int:
    pairs = zip(left, right, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def concepts_in(tokenizer: Tokenizer, token_ids: Sequence[int], tagger: str = "pattern") -> tuple[Concept, ...]:
    """Every noun of the generated text as a concept; ``tagger`` is one of ``TAGGERS``."""
    text, spans = token_spans(tokenizer, token_ids)
    found = (_locate(text, spans, token_ids, tokenizer, word) for word in nouns(text, tagger))
    return tuple(concept for concept in found if concept is not None)


def concept_of(tokenizer: Tokenizer, token_ids: Sequence[int], word: str, known: Sequence[Concept]) -> Concept:
    """Any word or words of the generated text; singular and plural stand for each other when only one occurs.

    Raises ``TargetError`` that lists the nouns that do occur.
    """
    text, spans = token_spans(tokenizer, token_ids)
    if not word.strip():
        raise TargetError("The concept is empty; name a word of the caption.")
    for form in _forms(word.strip()):
        concept = _locate(text, spans, token_ids, tokenizer, form)
        if concept is not None:
            return concept
    there = ", ".join(concept.word for concept in known) or "none"
    raise TargetError(
        f"The text {text.strip()!r} does not name {word!r}; its nouns are: {there}. "
        "For a word that the model did not generate, name a target instead of a concept."
    )


def _forms(word: str) -> list[str]:
    from textblob.en.inflect import pluralize, singularize

    return list(dict.fromkeys([word, singularize(word), pluralize(word)]))


def _locate(
    text: str, spans: list[tuple[int, int]], token_ids: Sequence[int], tokenizer: Tokenizer, word: str
) -> Concept | None:
    occurrences = []
    for match in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE):
        start, end = match.span()
        positions = tuple(k for k, (s, e) in enumerate(spans) if s < end and e > start)
        ids = tuple(int(token_ids[k]) for k in positions)
        pieces = tuple(text[spans[k][0] : spans[k][1]] for k in positions)
        occurrences.append(Occurrence(start, end, positions, ids, pieces))
    if not occurrences:
        return None
    return Concept(text[occurrences[0].start : occurrences[0].end], tuple(occurrences))
