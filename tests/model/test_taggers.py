"""Nouns of any language by the tagger that is named."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from neuronwise.errors import TargetError
from neuronwise.model import taggers
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
        ("klingon", "klingon"),
    ],
)
def test_taggers_that_cannot_be_used(tagger: str, said: str) -> None:
    with pytest.raises(TargetError, match=said):
        nouns("A dog", tagger)


def test_german() -> None:
    assert nouns("Ein Hund sitzt auf der Bank, zwei Kinder spielen Fußball.", "hanta") == [
        "Hund", "Bank", "Kinder", "Fußball",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["hanta", "spacy:xx_none"])
def test_what_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ImportError(module)

    taggers._hanta.cache_clear()
    monkeypatch.setattr(taggers, "import_module", missing)
    with pytest.raises(TargetError, match=r"pip install HanTa|needs spaCy and its model 'xx_none'"):
        nouns("Ein Hund", name)


def test_spacy_says_which_words_are_nouns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of spaCy itself this has what is used here: ``load(name)(text)``, tokens with ``text`` and ``pos_``."""
    tagged = [("Marie", "PROPN"), ("voit", "VERB"), ("un", "DET"), ("chien", "NOUN"), ("chien", "NOUN")]
    tokens = [SimpleNamespace(text=text, pos_=pos) for text, pos in tagged]
    stub = SimpleNamespace(load=lambda model: lambda text: tokens)
    taggers._spacy.cache_clear()
    monkeypatch.setattr(taggers, "import_module", lambda name: stub)
    assert nouns("Marie voit un chien", "spacy:fr_test") == ["Marie", "chien"]
    taggers._spacy.cache_clear()
