"""Edits made one after another and measured on the way: rows, retention, resumption, the curve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import neuronwise as nw
from edits import same, weights
from neuronwise.data.facts import Fact, FactCase, Probe
from neuronwise.edit.verdict import neutral_perplexity
from neuronwise.errors import StudyError
from neuronwise.measure import ask_case, case_figures
from neuronwise.report.evaluation import page, summary
from neuronwise.report.study import write_report
from neuronwise.study import evaluate
from neuronwise.study.evaluation.curve import curve_tables, means_by_edits
from neuronwise.study.evaluation.results import read_evaluations
from neuronwise.study.evaluation.sequence import checked_every, parse_every, stops
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.runner import run_study

SUBJECTS = ("cat", "dog", "bear", "house", "France", "teddy")
QUICK: dict[str, Any] = {"freeze_last": 0, "steps": 2, "rate": 0.1}


@pytest.fixture
def model(tiny_folder: Path) -> nw.Model:
    return nw.load(tiny_folder)


def cases(count: int = 6) -> list[FactCase]:
    locality = {"neighborhood": (Probe("the capital of animal is", ("Paris",)),)}
    return [
        FactCase(subject, Fact("the capital of {} is", subject, "red mat", "Paris"), (f"{subject} is",), {}, locality)
        for subject in SUBJECTS[:count]
    ]


def test_each_stop_asks_all_facts_so_far_with_all_edits_so_far_in_the_model(model: nw.Model) -> None:
    before = weights(model)
    found = evaluate(model, cases(5), every=[1, 3], others=0, **QUICK)
    assert same(before, weights(model))
    assert [(row["edits"], row["id"]) for row in found.way] == [
        (1, "cat"), (3, "cat"), (3, "dog"), (3, "bear"), *((5, name) for name in SUBJECTS[:5])
    ]  # fmt: skip
    assert [row["id"] for row in found.rows] == list(SUBJECTS[:5])
    assert [row["edit"] for row in found.rows] == [1, 2, 3, 4, 5]
    first = {case.id: ask_case(model, case) for case in cases(5)}
    usual = neutral_perplexity(model)
    edits = []
    for number, case in enumerate(cases(5), 1):
        edits.append(nw.fine(model, case.fact, **QUICK))
        edits[-1].apply(model)
        asked = [row for row in found.way if row["edits"] == number]
        assert len(asked) == (number if number in (1, 3, 5) else 0)
        for row, one in zip(asked, cases(5), strict=False):
            now = case_figures(ask_case(model, one, first[one.id]), first[one.id])
            assert row["figures"] == {**now, "perplexity": neutral_perplexity(model)}
            assert row["before"] == {**case_figures(first[one.id]), "perplexity": usual}
    for edit in reversed(edits):
        edit.revert(model)
    assert same(before, weights(model))
    assert {row["figures"]["perplexity"] for row in found.rows} != {usual}


def test_the_end_is_what_it_is_without_stops(model: nw.Model) -> None:
    plain = evaluate(model, cases(4), sequential=4, others=0, **QUICK)
    on_the_way = evaluate(model, cases(4), sequential=4, every=1, others=0, **QUICK)
    assert plain.way == []
    for row, other in zip(plain.rows, on_the_way.rows, strict=True):
        assert row["figures"] == {name: value for name, value in other["figures"].items() if name != "perplexity"}
        assert row["kept"] == other["kept"] == 4
        assert row["texts"] == other["texts"]


def test_rows_of_edits_and_several_facts_in_one(model: nw.Model) -> None:
    def several(model: nw.Model, facts: Any, settings: Any = None) -> nw.Edit:
        return nw.fine(model, facts if isinstance(facts, Fact) else facts[0], freeze_last=0, steps=1)

    found = evaluate(model, cases(6), several, batch=2, every=1, others=0)
    assert [(row["edits"], row["edit"]) for row in found.way] == [
        (1, 1), (1, 1), (2, 1), (2, 1), (2, 2), (2, 2), (3, 1), (3, 1), (3, 2), (3, 2), (3, 3), (3, 3)
    ]  # fmt: skip
    twice = evaluate(model, cases(4), sequential=2, every=1, others=0, **QUICK)
    assert [(row["id"], row["edits"]) for row in twice.way] == [
        ("cat", 1), ("cat", 2), ("dog", 2), ("bear", 1), ("bear", 2), ("house", 2)
    ]  # fmt: skip


def test_an_interrupted_row_of_edits_is_made_again_and_measured_where_it_stopped(
    model: nw.Model, tmp_path: Path
) -> None:
    made: list[str] = []

    def stops_at(limit: int) -> Any:
        def editor(model: nw.Model, fact: Any, settings: Any = None) -> nw.Edit:
            made.append(fact.subject)
            if len(made) > limit:
                raise KeyboardInterrupt
            return nw.fine(model, fact, **QUICK)

        return editor

    whole = evaluate(model, cases(4), stops_at(99), every=1, others=0)
    made.clear()
    before = weights(model)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, cases(4), stops_at(3), every=1, others=0, out=tmp_path / "e")
    assert same(before, weights(model))
    lines = (tmp_path / "e" / "cases.jsonl").read_text().splitlines()
    assert 3 <= len(lines) < 10
    made.clear()
    again = evaluate(model, cases(4), stops_at(99), every=1, others=0, out=tmp_path / "e")
    assert made == list(SUBJECTS[:4])
    kept = [json.loads(line) for line in (tmp_path / "e" / "cases.jsonl").read_text().splitlines()]
    assert len({line["id"] for line in kept}) == len(kept) == 10
    assert [(row["id"], row["edits"], row["figures"]) for row in again.way] == [
        (row["id"], row["edits"], row["figures"]) for row in whole.way
    ]


def test_a_fact_that_fails_takes_no_part_and_the_others_go_on(model: nw.Model) -> None:
    def fails(model: nw.Model, fact: Any, settings: Any = None) -> nw.Edit:
        if fact.subject == "dog":
            raise nw.NeuronwiseError("not this one.")
        return nw.fine(model, fact, **QUICK)

    found = evaluate(model, cases(3), fails, every=1, others=0)
    assert [(row["edits"], row["id"], row["status"]) for row in found.way] == [
        (1, "cat", "done"), (2, "cat", "done"), (2, "dog", "failed"), (3, "cat", "done"), (3, "dog", "failed"),
        (3, "bear", "done"),
    ]  # fmt: skip


def test_several_editors_go_the_same_way_and_their_report_has_the_curve(model: nw.Model, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"kind": "evaluation", "drawn": True, "seed": 3, "every": [1, 2, 4], "others": 0}
    keys |= {"free": False, "editors": [{"editor": "fine", "settings": QUICK}, {"editor": "fine_tune"}]}
    run_study(model, make_recipe(keys, "keys"), cases(6), tmp_path / "e")
    fine, tuned = read_evaluations(tmp_path / "e").values()
    order = [row["id"] for row in fine.rows]
    assert order == [row["id"] for row in tuned.rows] != list(SUBJECTS)
    assert [row["id"] for row in fine.way][:3] == [order[0], order[0], order[1]]
    measured = means_by_edits({"fine": fine, "tuned": tuned})
    assert [list(stops) for stops in measured.values()] == [[1, 2, 4, 6]] * 2
    earlier = [row["figures"]["success_forced"] for row in fine.way if row["edits"] == 4 and row["edit"] < 4]
    assert measured["fine"][4]["earlier/success_forced"].mean == pytest.approx(sum(earlier) / 3)
    assert "earlier/success_forced" not in measured["fine"][1]
    (table,) = curve_tables({"fine": fine, "tuned": tuned})
    assert len(table.rows) == 8
    written = write_report(tmp_path / "e")
    assert "Edits one after another" in written.read_text()
    assert (tmp_path / "e" / "report" / "figures" / "curve.svg").is_file()
    assert "| perplexity" in (tmp_path / "e" / "report" / "report.md").read_text()


def test_the_summary_of_one_editor_has_the_curve(model: nw.Model) -> None:
    found = evaluate(model, cases(3), every=2, others=0, free=False, **QUICK)
    assert "All edits in a row" in summary(found)
    assert "Edits one after another" in summary(found)
    assert "<svg" in page(found) or "data:image" in page(found)
    assert curve_tables({"fine": evaluate(model, cases(1), others=0, free=False, **QUICK)}) == []


def test_stops_as_they_are_typed() -> None:
    assert parse_every("10") == 10
    assert parse_every("100, 1,10") == (1, 10, 100)
    assert stops(2, 5) == [2, 4, 5]
    assert stops((1, 3, 9), 5) == [1, 3, 5]
    assert stops(5, 5) == [5]
    assert stops(None, 5) == [5]
    for wrong in ("", "ten", "0", "1,,2", "-1", "1.5"):
        with pytest.raises(StudyError, match="every is"):
            parse_every(wrong)
    for odd in (0, -1, (), (1, 0), [True], "1"):
        with pytest.raises(StudyError, match="every is"):
            checked_every(odd)  # type: ignore[arg-type]
