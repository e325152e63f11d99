"""Word lists: COCO's 80 categories with the plain words that stand for them (this project's own list)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypedDict

from neuronwise.files import from_json


class CocoWords(TypedDict):
    """``coco.json``: the words of each category, the categories of each of COCO's supercategories, and phrases that
    contain such a word and mean something else."""

    categories: dict[str, list[str]]
    kinds: dict[str, list[str]]
    others: list[str]


def _coco_words() -> CocoWords:
    found: CocoWords = from_json((Path(__file__).parent / "coco.json").read_bytes())
    return found


_COCO = _coco_words()

COCO_SYNONYMS: dict[str, tuple[str, ...]] = {name: (name, *words) for name, words in _COCO["categories"].items()}
"""Each COCO category with the words that stand for it, the category's own name first."""

COCO_CATEGORIES: tuple[str, ...] = tuple(COCO_SYNONYMS)
"""The 80 category names in COCO's order."""

COCO_KINDS: dict[str, str] = {name: kind for kind, names in _COCO["kinds"].items() for name in names}
"""What each COCO category is a kind of: its supercategory, such as "animal" for dog."""

PERSON = "person"


def plural(word: str) -> str:
    """The regular English plural of a word, or of the last word of a phrase."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


@cache
def coco_phrases() -> dict[str, str | None]:
    """Every phrase of the list in singular and plural, with the category that it names; None: another thing."""
    phrases: dict[str, str | None] = {}
    for phrase in _COCO["others"]:
        phrases[phrase] = phrases[plural(phrase)] = None
    for category, words in COCO_SYNONYMS.items():
        for word in words:
            phrases[word] = phrases[plural(word)] = category
    return phrases
