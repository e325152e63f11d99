"""The one answer to "does this text name that word?", and where it does; ``docs/naming.md`` gives the rule."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from neuronwise.data.scripts import whole_word
from neuronwise.data.words import coco_phrases, plural

# Before another noun "orange" is a color: an orange cat is not an orange.
_COLOR = re.compile(
    r"orange\s+(?!(?:and|or|in|on|with|at|is|are|next|sitting|to|from|of|that|which)\b)(?=[a-z])", re.IGNORECASE
)
_LETTERS = str.maketrans("’‐‑", "'--")  # one character for one: offsets stay


@dataclass(frozen=True)
class Mention:
    """Characters [start, end) of a text that name something: as written, and the COCO category that they name."""

    start: int
    end: int
    text: str
    category: str | None


def names(text: str, word: str) -> bool:
    """Whether a text names a word.

    >>> names("A puppy on a couch.", "dog"), names("A hot dog.", "dog"), names("A dog-like creature.", "dog")
    (True, False, False)
    """
    return bool(mentions(text, word))


def mentions(text: str, word: str | None = None) -> list[Mention]:
    """Where a text names a word, in order; without a word, where it names any COCO category.

    A COCO category is named by every word that stands for it, any other word by itself, in singular and plural.
    """
    listed = _listed(text)
    if word is None:
        return [mention for mention in listed if mention.category is not None]
    word = _plain(word)
    if not word:
        return []
    category = coco_phrases().get(word)
    if _is_category(word):
        return [mention for mention in listed if mention.category == category]
    found = (
        Mention(*match.span(), text[match.start() : match.end()], category)
        for match in _pattern(forms_of(word)).finditer(text.translate(_LETTERS))
    )
    return [one for one in found if category is None or not any(_is_part(one, phrase) for phrase in listed)]


def swapped(text: str, source: str, target: str) -> bool:
    """Whether a text names the target and no longer the source.

    A target that is itself a word for the source ("puppy" for dog) does not count as naming it.
    """
    there = mentions(text, target)
    own = [] if _is_category(_plain(target)) else there
    return bool(there) and all(mention in own for mention in mentions(text, source))


def objects_named(text: str) -> set[str]:
    """The COCO categories that a text names, as CHAIR reads captions (Rohrbach et al. 2018, arXiv:1809.02156)."""
    return {mention.category for mention in _listed(text) if mention.category is not None}


def _is_category(word: str) -> bool:
    category = coco_phrases().get(word)
    return category is not None and word in (category, plural(category))


def _is_part(mention: Mention, phrase: Mention) -> bool:
    """Whether a listed word is a part of the name of another thing, as "dog" in "hot dog"."""
    inside = phrase.start <= mention.start and mention.end <= phrase.end
    return inside and mention.category != phrase.category


@cache
def _listed_pattern() -> re.Pattern[str]:
    return _pattern(tuple(coco_phrases()))


def _listed(text: str) -> list[Mention]:
    """All listed phrases of a text, the longest at each place."""
    plain, found = text.translate(_LETTERS), []
    for match in _listed_pattern().finditer(plain):
        category = coco_phrases()[_plain(match.group())]
        if category != "orange" or not _COLOR.match(plain, match.start()):
            found.append(Mention(*match.span(), text[match.start() : match.end()], category))
    return found


@cache
def _pattern(forms: tuple[str, ...]) -> re.Pattern[str]:
    """Any of some phrases as words of their own."""
    written = {unicodedata.normalize(kind, form) for form in forms for kind in ("NFC", "NFD")}
    longest_first = sorted(written, key=len, reverse=True)
    any_of = "|".join(r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", form))) for form in longest_first)
    return re.compile(whole_word(any_of), re.IGNORECASE)


def worded(found: Mention, form: str) -> bool:
    """Whether a mention is written as a form of a word, whatever its case, hyphens and composed letters."""
    return _plain(found.text) == _plain(form)


@cache
def forms_of(word: str) -> tuple[str, ...]:
    """A word in singular and plural. A singular counts only where its plural is the word: "news" is not of "new"."""
    from textblob.en.inflect import pluralize, singularize  # here: its lexicon takes a while to load

    single = singularize(word)
    shorter = [] if single == word else [single, word[:-1], word[:-2]]
    singulars = [form for form in shorter if form and word in (pluralize(form), plural(form))]
    return tuple(dict.fromkeys([word, *singulars, pluralize(word), plural(word)]))


def _plain(words: str) -> str:
    return unicodedata.normalize("NFC", re.sub(r"[\s-]+", " ", words.translate(_LETTERS).strip()).lower())
