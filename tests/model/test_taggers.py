"""Nouns of any language by the tagger that is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from neuronwise.errors import TargetError
from neuronwise.model.taggers import nouns


def test_words_of_a_file_in_any_script(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("猫\n长椅\n椅\nBank\nchat\nchat noir\n\n", encoding="utf-8")
    assert nouns("一只猫坐在长椅上。猫", f"words:{file}") == ["猫", "长椅"]
    assert nouns("Eine Katze auf der bank, Bankett.", f"words:{file}") == ["bank"]
    assert nouns("Un chat noir et un chat", f"words:{file}") == ["chat noir", "chat"]
    assert nouns("nothing", f"words:{file}") == []


def test_english_by_either_name() -> None:
    assert nouns("A dog on a bench", "textblob") == nouns("A dog on a bench") == ["dog", "bench"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A bear.", ["bear"]),
        ("A brown bear in the grass.", ["bear", "grass"]),
        ("A bear and a zebra", ["bear", "zebra"]),
        ("A woman at the sink.", ["woman", "sink"]),
        ("An orange.", ["orange"]),
        ("A remote on a table.", ["remote", "table"]),
        ("They bear it.", []),
        ("The cat can sink.", ["cat"]),
        ("A red, white and blue kite.", ["kite"]),
        ("The orange and white cat.", ["cat"]),
        ("A close up of a pizza", ["pizza"]),
        ("A few.", []),
        ("The same.", []),
    ],
)
def test_nouns_that_are_also_verbs_or_adjectives(text: str, found: list[str]) -> None:
    assert nouns(text) == found


@pytest.mark.parametrize(
    ("tagger", "said"),
    [
        ("words", "words:…"),
        ("pattern:en", "'pattern'"),
        ("words:/no/such/file", "cannot be read"),
        ("spacy:xx_none", "needs spaCy"),
        ("klingon", "klingon"),
    ],
)
def test_taggers_that_cannot_be_used(tagger: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        nouns("A dog", tagger)


@pytest.mark.skipif(importlib.util.find_spec("HanTa") is None, reason="needs HanTa")
def test_german() -> None:
    assert nouns("Ein Hund sitzt auf der Bank", "hanta") == ["Hund", "Bank"]


def test_german_says_what_it_needs() -> None:
    if importlib.util.find_spec("HanTa") is None:
        with pytest.raises(TargetError, match="pip install HanTa"):
            nouns("Ein Hund", "hanta")
