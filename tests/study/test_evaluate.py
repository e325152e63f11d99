"""Whole evaluations on a tiny model: rows, failures, kept edits, interruption and going on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from edits import same, weights
from neuronwise.data.facts import Fact, FactCase, Probe, load_facts
from neuronwise.drawing.tables import Estimate
from neuronwise.errors import MethodError, NonFiniteError, StudyError
from neuronwise.measure import ask_case, case_figures, measure_edit
from neuronwise.report.study import write_report
from neuronwise.study import TIMINGS, evaluate, flat_row, known_cases, read_cases, read_evaluation
from neuronwise.study.evaluation.recipe import EvaluationRecipe
from neuronwise.study.evaluation.results import evaluations, read_evaluations
from neuronwise.study.evaluation.tables import quality
from neuronwise.study.kinds import KINDS
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.results import read_study
from neuronwise.study.runner import run_study

SUBJECTS = ("cat", "dog", "bear", "house", "France", "teddy")
QUICK: dict[str, Any] = {"freeze_last": 0, "steps": 2, "others": 3}


@pytest.fixture
def model(tiny_folder: Path) -> nw.Model:
    """The tiny LLaMA: edits move it, unlike the wired model of the other studies."""
    return nw.load(tiny_folder)


def cases(count: int = 6) -> list[FactCase]:
    return [
        FactCase(
            subject,
            Fact("the capital of {} is", subject, "red mat", "Paris"),
            (f"{subject} is",),
            {"reasoning": (Probe(f"the animal in {subject} sits on", ("mat", "blue")),)},
            {
                "relation_specificity": (Probe(f"the {subject} runs"),),
                "neighborhood": (Probe("the capital of animal is", ("Paris",)),),
            },
        )
        for subject in SUBJECTS[:count]
    ]


def untimed(row: Any) -> Any:
    return {**row, "cost": {name: value for name, value in row["cost"].items() if name not in TIMINGS}}


def test_rows_hold_what_measuring_each_edit_gives(model: nw.Model) -> None:
    before = weights(model)
    found = evaluate(model, cases(2), freeze_last=0, steps=2, others=0)
    assert same(before, weights(model))
    assert [row["reason"] for row in found.rows] == [None, None]
    for case, row in zip(cases(2), found.rows, strict=True):
        edit = nw.fine(model, case.fact, freeze_last=0, steps=2)
        assert row["figures"] == measure_edit(model, case, edit)
        assert row["before"] == case_figures(ask_case(model, case))
        assert row["cost"]["parameters_changed"] == edit.parameters_changed
        assert row["outcome"]["steps"] == edit.record["steps"]
        with edit.applied(model):
            texts = [answered.text for answered in ask_case(model, case).answers]
        assert [text["after"] for text in row["texts"]] == texts
    assert same(before, weights(model))


def test_edits_in_a_row_are_kept_at_once(model: nw.Model) -> None:
    before = weights(model)
    found = evaluate(model, cases(5), freeze_last=0, steps=2, others=0, sequential=3, rate=0.1)
    assert same(before, weights(model))
    assert [row["kept"] for row in found.rows] == [3, 3, 3, 2, 2]
    first = [ask_case(model, case) for case in cases(3)]
    edits = []
    for case in cases(3):
        edits.append(nw.fine(model, case.fact, freeze_last=0, steps=2, rate=0.1))
        edits[-1].apply(model)
    for case, row, answers in zip(cases(3), found.rows, first, strict=False):
        assert row["figures"] == case_figures(ask_case(model, case, answers), answers)
    for edit in edits:
        edit.revert(model)


def test_several_facts_in_one_edit_bear_their_share(model: nw.Model) -> None:
    seen = []

    def several(model: nw.Model, facts: Any, settings: Any = None) -> nw.Edit:
        seen.append(1 if isinstance(facts, Fact) else len(facts))
        time.sleep(0.04)
        return nw.fine(model, facts if isinstance(facts, Fact) else facts[0], freeze_last=0, steps=1)

    found = evaluate(model, cases(3), several, batch=2, others=0)
    assert seen == [2, 1]
    assert found.rows[0]["cost"]["seconds"] == found.rows[1]["cost"]["seconds"]
    assert found.recipe["editor"] == "several"


def test_the_facts_of_a_case_are_one_edit_and_each_is_asked(model: nw.Model) -> None:
    also = Fact("the {} runs in", "dog", "blue", "red")
    case = replace(cases(1)[0], also=(also,))
    made: list[Any] = []

    def seen(model: nw.Model, facts: Any, settings: Any = None) -> nw.Edit:
        made.append(facts)
        return nw.fine(model, facts, freeze_last=0, steps=2)

    (row,) = evaluate(model, [case], seen, others=0).rows
    assert made == [[case.fact, also]]
    edit = nw.fine(model, [case.fact, also], freeze_last=0, steps=2)
    assert row["figures"] == measure_edit(model, case, edit)
    assert [text["prompt"] for text in row["texts"] if text["part"] == "success"] == [case.fact.text, also.text]
    with edit.applied(model):
        shares = [
            answered.readings[answered.question.new or ""].share for answered in ask_case(model, case).answers[:2]
        ]
    assert row["figures"]["success_forced"] == sum(shares) / 2

    # all of its facts have to be known, and other facts about any of its subjects are not asked after it
    prompts = [Fact(prompt, subject, "blue", None) for prompt in ("{} is", "a {} sits on") for subject in SUBJECTS[1:]]
    said = [model.run(prompt=fact.text, max_new_tokens=2, chat=False).text.strip() or "is" for fact in prompts]
    pairs = zip(prompts, said, strict=True)
    single = [FactCase(fact.text, replace(fact, target_true=text)) for fact, text in pairs]
    first, second = known_cases(model, single)[:2]
    unknown = replace(second.fact, target_true="giraffe mat")
    assert known_cases(model, [replace(first, also=(second.fact,))]) == [replace(first, also=(second.fact,))]
    assert known_cases(model, [replace(first, also=(unknown,)), replace(first, also=(also, second.fact))]) == []
    known = replace(case, also=(second.fact,))
    other = FactCase("other", Fact("the {} runs in", second.fact.subject, "blue", "red"))
    kept, beside = evaluate(model, [known, other], freeze_last=0, steps=1, others=2, free=False).rows
    assert "others_unchanged_forced" not in kept["figures"]
    assert "others_unchanged_forced" in beside["figures"]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), NonFiniteError("no."),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])  # fmt: skip
@pytest.mark.parametrize("sequential", [1, 3])
def test_a_case_that_fails_is_recorded_and_the_others_go_on(
    model: nw.Model, tmp_path: Path, error: Exception, sequential: int
) -> None:
    def fails(model: nw.Model, facts: Any, settings: Any = None) -> nw.Edit:
        if facts.subject == "dog":
            raise error
        return nw.fine(model, facts, freeze_last=0, steps=1)

    before = weights(model)
    found = evaluate(model, cases(3), fails, out=tmp_path / "out", sequential=sequential, others=0, free=False)
    assert same(before, weights(model))
    assert [row["status"] for row in found.rows] == ["done", "failed", "done"]
    reason = found.rows[1]["reason"]
    assert "out of memory" in reason or "no." in reason
    assert [row["kept"] for row in found.rows] == ([2, 2, 2] if sequential == 3 else [1, 0, 1])
    assert found.means()["success_forced"].n == 2
    assert read_cases(tmp_path / "out") == list(found.rows)


def test_an_edit_that_breaks_the_model_fails_its_case(model: nw.Model) -> None:
    def breaks(model: nw.Model, facts: Any, settings: Any = None) -> nw.Edit:
        edit = nw.fine(model, facts, freeze_last=0, steps=1)
        if facts.subject == "dog":
            edit.deltas[0].left.fill_(1e38)
        return edit

    before = weights(model)
    found = evaluate(model, cases(3), breaks, others=0, free=False)
    assert same(before, weights(model))
    assert [row["status"] for row in found.rows] == ["done", "failed", "done"]
    assert found.rows[1]["reason"].startswith("after the edit: ")


def test_a_case_that_cannot_be_asked_fails_alone(model: nw.Model) -> None:
    bad = FactCase("bad", Fact("{} is", "cat", "unheard"))
    found = evaluate(model, [bad, *cases(1)], freeze_last=0, steps=1, others=2)
    assert [row["status"] for row in found.rows] == ["failed", "done"]
    assert "unheard" in found.rows[0]["reason"]


def test_a_defect_is_no_failed_case(model: nw.Model) -> None:
    def wrong(model: nw.Model, facts: Any, settings: Any = None) -> nw.Edit:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        evaluate(model, cases(1), wrong, others=0)


def test_an_interrupted_run_goes_on_where_it_stopped(model: nw.Model, tmp_path: Path) -> None:
    calls = []

    def stops(model: nw.Model, facts: Any, settings: Any = None) -> nw.Edit:
        calls.append(facts.subject)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return nw.fine(model, facts, freeze_last=0, steps=1)

    before = weights(model)
    options: dict[str, Any] = {"others": 3, "sequential": 2, "free": False}
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, cases(), stops, out=tmp_path / "out", **options)
    assert same(before, weights(model))
    assert [row["id"] for row in read_cases(tmp_path / "out")] == list(SUBJECTS[:4])
    found = evaluate(model, cases(), stops, out=tmp_path / "out", **options)
    assert calls[5:] == ["France", "teddy"]
    whole = evaluate(model, cases(), stops, **options)
    assert [untimed(row) for row in found.rows] == [untimed(row) for row in whole.rows]
    again = evaluate(model, cases(), stops, out=tmp_path / "out", **options)
    assert again.rows == found.rows
    assert len(calls) == 7 + 6


def test_the_table_is_the_lines(model: nw.Model, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = evaluate(model, cases(3), out=tmp_path / "out", **QUICK)
    table = parquet.read_table(tmp_path / "out" / "cases.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "out" / "cases.jsonl").read_text().splitlines()]
    assert [{k: v for k, v in row.items() if v is not None} for row in table] == [
        {k: v for k, v in flat_row(line).items() if v is not None} for line in lines
    ]
    assert table[0]["success_forced"] == found.rows[0]["figures"]["success_forced"]
    assert read_evaluation(tmp_path / "out").rows == lines


def test_another_recipe_is_refused(model: nw.Model, tmp_path: Path) -> None:
    evaluate(model, cases(2), out=tmp_path / "out", free=False, **QUICK)
    held = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for change in ({"n": 3}, {"seed": 1}, {"sequential": 2}):
        with pytest.raises(StudyError, match="begun with"):
            evaluate(model, cases(2), out=tmp_path / "out", free=False, **{**QUICK, **change})
    with pytest.raises(StudyError, match="sha256"):
        evaluate(model, list(reversed(cases(2))), out=tmp_path / "out", free=False, **QUICK)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == held


def test_wrong_calls_are_said(model: nw.Model) -> None:
    with pytest.raises(MethodError, match="no editor 'finest'"):
        evaluate(model, cases(1), "finest")
    with pytest.raises(MethodError, match="no setting 'm'"):
        evaluate(model, cases(1), m=3)
    with pytest.raises(StudyError, match="no cases"):
        evaluate(model, [])
    with pytest.raises(StudyError, match="id 'cat'"):
        evaluate(model, cases(1) * 2)
    with pytest.raises(StudyError, match="sequential is 0"):
        evaluate(model, cases(1), sequential=0)
    with pytest.raises(StudyError, match="sequential is 'two'"):
        evaluate(model, cases(1), sequential="two")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="what load_facts gives"):
        evaluate(model, [cases(1)[0].fact])  # type: ignore[list-item]


def test_what_cannot_be_begun_leaves_no_folder(model: nw.Model, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cannot: list[tuple[dict[str, Any], str]] = [
        ({"n": 0}, "n and steps"), ({"editor": "rome", "layers": (0, 9)}, "layers: there is no layer 9"),
        ({"n": None}, "n=None does not fit"), ({"rate": "fast"}, "a number"),
    ]  # fmt: skip
    for wrong, said in cannot:
        with pytest.raises(MethodError, match=said):
            evaluate(model, cases(1), out=out, **wrong)
    with pytest.raises(StudyError, match="holds no study and no evaluation"):
        evaluate(model, cases(1), out=out, like=tmp_path / "none", **QUICK)
    with pytest.raises(StudyError, match="none of the true answers"):
        evaluate(model, [FactCase("a", Fact("the capital of {} is", "France", "red"))], out=out, known=True, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_known_cases_are_those_whose_every_token_is_said(model: nw.Model, tmp_path: Path) -> None:
    said = [model.run(prompt=f"the capital of {subject} is", max_new_tokens=2, chat=False) for subject in SUBJECTS[:2]]
    words = [run.text.strip() for run in said]
    true = [words[0], "giraffe" if words[1] != "giraffe" else "mat", None]
    asked = [
        FactCase(str(number), Fact("the capital of {} is", subject, "red", answer))
        for number, (subject, answer) in enumerate(zip(SUBJECTS, true, strict=False))
    ]
    assert [case.id for case in known_cases(model, asked)] == ["0"]
    found = evaluate(model, asked, known=True, out=tmp_path / "out", free=False, **QUICK)
    assert [row["id"] for row in found.rows] == ["0"]
    with pytest.raises(StudyError, match="none of the true answers"):
        evaluate(model, asked[1:], known=True)


def test_other_facts_are_neither_of_the_same_case_nor_subject(model: nw.Model) -> None:
    alike = [*cases(2), FactCase("again", Fact("{} runs in", "cat", "red", "Paris"))]
    found = evaluate(model, alike, freeze_last=0, steps=1, others=3, free=False, rate=1e-9)
    assert found.means()["others_unchanged_forced"].mean == 1
    together = evaluate(model, alike, freeze_last=0, steps=1, others=3, free=False, sequential=3)
    assert "others_unchanged_forced" not in together.means()


SCRIPT = """
import sys
sys.path[:0] = [sys.argv[3]]
import neuronwise as nw
from study.test_evaluate import QUICK, cases
from neuronwise.study import evaluate
evaluate(nw.load(sys.argv[1]), cases(), out=sys.argv[2], **QUICK)
"""


@pytest.mark.long
def test_a_killed_run_resumed_is_the_uninterrupted_one(model: nw.Model, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    chance = random.Random(0)
    tests = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    (tmp_path / "run.py").write_text(SCRIPT)
    for least in (0, 2):  # killed while asking before, then amid the edits
        command = [sys.executable, str(tmp_path / "run.py"), str(tiny_folder), str(out), str(tests)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            watched = out / ("cases.jsonl" if least else "before.jsonl")
            while process.poll() is None and not (watched.exists() and watched.read_bytes().count(b"\n") > least):
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.wait()
            assert watched.exists(), process.stderr and process.stderr.read().decode()
    kept = read_cases(out)
    assert len(kept) > 2
    found = evaluate(model, cases(), out=out, **QUICK)
    whole = evaluate(model, cases(), out=tmp_path / "whole", **QUICK)
    assert [untimed(row) for row in found.rows] == [untimed(row) for row in whole.rows]
    assert [row for row in found.rows if row["id"] in {k["id"] for k in kept}] == kept
    lines = (out / "cases.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(SUBJECTS)


def test_answers_before_are_taken_from_another_editors_run(
    model: nw.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = ask_case
    home = "neuronwise.study.evaluation.unedited.ask_case"
    monkeypatch.setattr(home, lambda *args, **kwargs: asked.append(1) or real(*args, **kwargs))
    settings: dict[str, Any] = {"freeze_last": 0, "steps": 2, "others": 2}
    evaluate(model, cases(3), out=tmp_path / "fine", **settings)
    assert len(asked) == 3
    rome = {"v_num_grad_steps": 1, "layers": (1,)}
    alone = evaluate(model, cases(3), "rome", others=2, changes=rome)
    asked.clear()
    found = evaluate(model, cases(3), "rome", others=2, out=tmp_path / "rome", like=tmp_path / "fine", changes=rome)
    assert not asked
    assert [untimed(row) for row in found.rows] == [untimed(row) for row in alone.rows]
    notes = tmp_path / "fine" / "before.jsonl"
    rows = [json.loads(line) for line in notes.read_text().splitlines()]
    (able,) = [row for row in rows if row["part"] == "ability"]
    for able["value"] in (None, 3, {"perplexity_text": "low"}):
        notes.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(StudyError, match="are damaged: the figures of general ability"):
            evaluate(model, cases(3), "rome", others=2, like=tmp_path / "fine", changes=rome)
    with pytest.raises(StudyError, match="another seed"):
        evaluate(model, cases(3), "rome", others=2, seed=1, out=tmp_path / "more", like=tmp_path / "fine")
    with pytest.raises(StudyError, match="holds no study and no evaluation"):
        evaluate(model, cases(3), "rome", others=2, out=tmp_path / "none", like=tmp_path / "gone")


def several(**more: Any) -> dict[str, Any]:
    editors = [{"editor": "fine", "settings": {"freeze_last": 0, "steps": 2}}, {"editor": "rome", "name": "R",
               "settings": {"layers": [0], "v_num_grad_steps": 1}}]  # fmt: skip
    return {"kind": "evaluation", "editors": editors, "others": 2, **more}


def test_several_editors_are_one_study(model: nw.Model, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    study = run_study(model, make_recipe(several()), cases(3), tmp_path / "out")
    assert [line["id"] for line in study.lines] == [
        f"{editor}/{name}" for name in SUBJECTS[:3] for editor in ("fine freeze_last=0 steps=2", "R")
    ]  # an unfinished one has the same cases of both
    found = read_evaluations(tmp_path / "out")
    alone = {name: evaluate(model, cases(3), editor, others=2, changes=given) for name, editor, given in (
        ("fine freeze_last=0 steps=2", "fine", {"freeze_last": 0, "steps": 2}),
        ("R", "rome", {"layers": [0], "v_num_grad_steps": 1}))}  # fmt: skip
    for name, one in alone.items():
        assert [row["figures"] for row in found[name].rows] == [row["figures"] for row in one.rows]
        assert found[name].means() == one.means()
    (row,) = next(table for table in KINDS["evaluation"].tables(study) if table.name == "differences").rows
    gaps = [b["figures"]["success_forced"] - a["figures"]["success_forced"]
            for a, b in zip(*(one.rows for one in alone.values()), strict=True)]  # fmt: skip
    assert isinstance(row[1], Estimate)
    assert row[1].mean == pytest.approx(sum(gaps) / len(gaps))
    with pytest.raises(StudyError, match="2 editors"):
        read_evaluation(tmp_path / "out")
    lines = (tmp_path / "out/cases.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "out/cases.jsonl").write_bytes(b"".join(lines[:4]))
    run_study(model, make_recipe(several()), cases(3), tmp_path / "out")
    assert [untimed(line) for line in read_study(tmp_path / "out").lines] == [
        untimed(json.loads(json.dumps(line))) for line in study.lines
    ]


def test_editors_are_compared_on_the_cases_that_all_of_them_measured(model: nw.Model, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    tried = {"editor": "fine", "settings": {"freeze_last": 0, "steps": 2}, "sweep": {"n": [1, 2]}}
    recipe = make_recipe({"kind": "evaluation", "editors": [tried], "others": 0, "free": False})
    run_study(model, recipe, cases(3), tmp_path / "out")
    path = tmp_path / "out/cases.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    refused = {"status": "failed", "reason": "it says so already", "figures": {}, "before": {}, "cost": {}, "texts": []}
    lines[3] |= refused  # the second editor's second case
    for number, line in enumerate(lines):
        if line["status"] == "done":
            line["figures"]["success_forced"] = number / 8
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tables = {table.name: table for table in KINDS["evaluation"].tables(read_study(tmp_path / "out"))}
    rows = tables["editors"].rows
    assert [row[1:3] for row in rows] == [[2, 0], [2, 1]]
    assert [row[3].mean for row in rows if isinstance(row[3], Estimate)] == [(0 + 4) / 16, (1 + 5) / 16]
    lines[1] |= refused
    lines[5] |= refused
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tables = {table.name: table for table in KINDS["evaluation"].tables(read_study(tmp_path / "out"))}
    assert [row[1:3] for row in tables["editors"].rows] == [[3, 0], [0, 3]]  # one that measured nothing takes nothing


def test_what_of_the_facts_is_not_read_is_in_the_record(model: nw.Model, tmp_path: Path) -> None:
    record = {"prompt": "the capital of cat is", "subject": "cat", "target_new": "red", "hint": "x"}
    (tmp_path / "facts.json").write_text(json.dumps([record, {"prompt": 1}]))
    evaluate(model, load_facts(tmp_path / "facts.json"), out=tmp_path / "out", **QUICK)
    about = json.loads((tmp_path / "out/manifest.json").read_text())["data"]
    assert (about["unread"], about["left_out"]) == ({"hint": 1}, 1)


def test_one_editor_is_the_same_study_from_a_recipe(model: nw.Model, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    recipe = {**several(), "editors": [{"editor": "fine", "settings": {"freeze_last": 0, "steps": 2}}]}
    study = run_study(model, make_recipe(recipe), cases(2), tmp_path / "out")
    found = evaluate(model, cases(2), freeze_last=0, steps=2, others=2, out=tmp_path / "out")
    assert found.rows == study.lines == read_evaluation(tmp_path / "out").rows
    assert write_report(tmp_path / "out").is_file()


def test_tries_are_drawn_from_a_sweep() -> None:
    editor = {"editor": "fine", "name": "F", "sweep": {"n": [1, 2, 5], "rate": [0.1, 0.2]}, "tries": 3}
    recipe = make_recipe({"kind": "evaluation", "editors": [editor]})
    assert isinstance(recipe, EvaluationRecipe)
    first, *drawn = recipe.editors[0].makers(0)
    assert first == "F"
    assert len(set(drawn)) == 2
    assert list(recipe.editors[0].makers(0)) == [first, *drawn]
    for wrong in ({"settings": {"m": 1}}, {"sweep": {"m": [1]}}):
        with pytest.raises(StudyError, match="no setting 'm'"):
            make_recipe({"kind": "evaluation", "editors": [{"editor": "fine", **wrong}]})
    with pytest.raises(StudyError, match="no editor 'fines'"):
        make_recipe({"kind": "evaluation", "editors": ["fines"]})


def test_a_search_leaves_its_facts_out_and_gives_its_best_settings(model: nw.Model, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    tried = {"editor": "fine", "name": "F", "settings": {"freeze_last": 0, "steps": 2}, "sweep": {"n": [1, 2]}}
    base = {"kind": "evaluation", "others": 0, "free": False, "drawn": True}
    search = run_study(model, make_recipe({**base, "editors": [tried], "limit": 2}), cases(), tmp_path / "search")
    best = max(evaluations(search).values(), key=lambda one: quality(one.means())).recipe["changes"]
    chosen = {"editor": "fine", "name": "F", "best_of": str(tmp_path / "search")}
    found = run_study(model, make_recipe({**base, "editors": [chosen], "skip": 2}), cases())
    assert found.recipe["changes"] == best
    seen = {line["case"] for line in search.lines}
    assert len(seen) == 2
    assert {line["id"] for line in found.lines} == set(SUBJECTS) - seen
    with pytest.raises(StudyError, match="no try of rome"):
        run_study(model, make_recipe({**base, "editors": [{"editor": "rome", "best_of": chosen["best_of"]}]}), cases())
    lines = (tmp_path / "search" / "cases.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "search" / "cases.jsonl").write_text("".join(lines[:1]))
    with pytest.raises(StudyError, match="has 1 of 4 cases; finish it first"):
        run_study(model, make_recipe({**base, "editors": [chosen], "skip": 2}), cases())
    half = read_study(tmp_path / "search")
    assert [row[0] for row in KINDS["evaluation"].tables(half)[0].rows] == ["F n=1"]  # the other is not begun
    assert len(KINDS["evaluation"].figures(half)) == 1
