"""What the caption benchmarks count, on captions written by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

KINDS = {"dog": "animal", "cat": "animal", "bus": "vehicle", "hot dog": "food", "person": "person"}


def photo(scripts: Any, text: str, nouns: list[str], objects: set[str], named: set[str] | None = None) -> Any:
    return scripts("coco_captions").Photo(Path("a.jpg"), objects, named or set(), KINDS, text, nouns)


def test_a_case_is_a_noun_for_what_is_there(scripts: Any) -> None:
    shown = [
        photo(scripts, "A man and a dog on a mat.", ["man", "dog", "mat"], {"dog", "person"}),
        photo(scripts, "A cat.", ["cat"], {"dog"}),
    ]
    (case,) = scripts("captions").cases(shown, 0, {"dog", "cat", "bus", "person"})
    assert (case.word, case.category, case.target) == ("dog", "dog", "cat")
    assert case.rest == ["man", "mat"]


def test_targets_are_not_there_and_close_where_they_can_be(scripts: Any) -> None:
    target = scripts("captions").target_for
    choice, free = random.Random(0), {"dog", "cat", "bus", "person"}
    assert target(photo(scripts, "A dog.", ["dog"], {"dog"}), "dog", choice, free) == "cat"
    crowded = photo(scripts, "A dog and cats.", ["dog", "cats"], {"dog"})
    far = {target(crowded, "dog", choice, free) for _ in range(20)}
    assert far == {"bus", "person"}


def test_what_became_of_a_caption(scripts: Any) -> None:
    captions = scripts("captions")
    before = photo(scripts, "Two dogs and a man on a mat.", ["dogs", "man", "mat"], {"dog"})
    case = captions.Case(before, "dogs", "dog", "cat")
    row = captions.told(case, "Two cats and a puppy on a mat and a mat.")
    assert (row["left"], row["category"], row["entered"], row["kept"]) == (False, False, True, 0.5)
    assert row["length"] == pytest.approx(11 / 8)
    assert row["repetition"] == pytest.approx(1 / 10)  # "a mat" twice among ten pairs
    assert captions.told(case, before.text)["unchanged"]
    assert captions.told(case, "A cat.")["left"]


def test_the_report_takes_means_over_cases(scripts: Any) -> None:
    captions = scripts("captions")
    row = {"left": True, "category": True, "entered": False, "kept": None, "length": 1, "repetition": 0}
    other = {"unchanged": True, "kept": 0.5, "entered": False}
    edits = {f"{e}/{k}": {"own": row, "others": [other]} for e in captions.TOP for k in captions.NEURONS}
    text = captions.report([{"edits": edits}, {"edits": edits}], [])
    assert text.startswith("2 photos")
    assert "| swap, located | 1.00 (1.00–1.00) | 1.00 (1.00–1.00) | 0.00 (0.00–0.00) | – |" in text
