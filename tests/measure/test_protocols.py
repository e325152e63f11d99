"""Published protocols: their scores against published libraries, what they ask, and their figures."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

import neuronwise as nw
import neuronwise.answers.answers as answers
from neuronwise.answers.protocols.mquake import PROMPT, answered
from neuronwise.answers.protocols.table import PROTOCOLS
from neuronwise.answers.protocols.unke import rouge_l_recall
from neuronwise.answers.protocols.wild import exact_match, normalized
from neuronwise.answers.questions import Question
from neuronwise.data.facts import Fact, FactCase, Probe
from neuronwise.errors import MethodError
from neuronwise.measure import ask_case, case_figures, measure_edit
from neuronwise.measure.case import CaseAnswers
from neuronwise.measure.protocols import protocol_figures
from neuronwise.study import evaluate, read_evaluation
from neuronwise.study.evaluation.figure_names import described
from shell import refused, shell


def case() -> FactCase:
    return FactCase(
        "1",
        Fact("the capital of {} is", "cat", "red mat", "Paris"),
        ("the cat is",),
        {"multi_hop": (Probe("who sits on the mat", ("dog",)), Probe("the mat has", ("dog", "bear")))},
        {"unrelated": (Probe("the house runs", ("in",)),)},
    )


@pytest.mark.parametrize(
    ("text", "answer", "same"),
    [
        (" The  Rome", "rome", 1), ("Rome!", "rome", 1), ("U.S.A", "USA", 1), ("a man", "The man", 1),
        ("theater", "ater", 0), ("Rome Rome", "Rome", 0), ("", "Rome", 0),
    ],
)  # fmt: skip
def test_exact_match_is_without_case_articles_and_punctuation(text: str, answer: str, same: int) -> None:
    assert exact_match(text, answer) == same
    assert normalized(normalized(text)) == normalized(text)


def test_recall_is_that_of_rouge_score() -> None:
    scorer = RougeScorer(["rougeL"])
    draw = random.Random(0)
    words = ["Rome", "is", "the", "city", "of", "Rome,", "9", "-", "Sea."]
    for _ in range(200):
        text, answer = (" ".join(draw.choices(words, k=draw.randint(1, 9))) for _ in range(2))
        assert rouge_l_recall(text, answer) == pytest.approx(scorer.score(answer, text)["rougeL"].recall)
    assert rouge_l_recall("x", "…") == 0


def test_the_answer_of_a_chain_of_thought_is_its_line() -> None:
    assert answered(" The sea of Rome is here.\nAnswer: Rome\nQuestion: Who?\nAnswer: Bo", "rome") == 1
    assert answered(" Answer: Rome is not a line. Answer: Rome", "Rome") == 0
    assert answered("Rome", "Rome") == 0
    heard = PROTOCOLS["mquake"].heard
    assert heard(" A.\nAnswer: B\n\nQuestion: C") == " A.\nAnswer: B"
    assert heard(" A.\nAnswer: B\nQuestion: C") == " A.\nAnswer: B"
    assert PROMPT.count("Question:") == PROMPT.count("Thoughts:") == PROMPT.count("\nAnswer:") == 5
    for said in PROMPT.strip().split("\n\n"):
        assert answered(said, said.rpartition("Answer: ")[2]) == 1


def test_wild_says_what_generate_says_up_to_a_stop(tiny_folder: Path) -> None:
    model = nw.load(tiny_folder)
    found = ask_case(model, case(), free=False, protocols=["wild"])
    questions = found.questions
    assert len(found.protocols["wild"]) == len(questions) == 5
    tokenizer, cut = model.tokenizer, 0
    for question, text in zip(questions, found.protocols["wild"], strict=True):
        inputs = tokenizer(question.prompt, return_tensors="pt")
        made = model.module.generate(**inputs, max_new_tokens=50, do_sample=False)
        said = made[0, inputs["input_ids"].shape[1] :]
        steps = [tokenizer.decode(said[:length], skip_special_tokens=True) for length in range(len(said) + 1)]
        ended = next((step for step in steps if "." in step or "\n" in step), steps[-1])
        cut += len(ended) < len(steps[-1])
        assert re.split(r"[.\n]", ended)[0] == text
    assert cut


def test_mquake_asks_behind_its_examples(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nw.load(tiny_folder)
    laid_out: list[Question] = []
    lengths: list[int] = []
    monkeypatch.setattr(answers, "_laid_out", lambda model, asked: laid_out.extend(asked) or [])
    monkeypatch.setattr(answers, "continued", lambda model, inputs, wanted: lengths.extend(wanted) or [])
    answers.protocol_texts(model, ask_questions(), PROTOCOLS["mquake"])
    assert [question.prompt for question in laid_out] == [
        f"{PROMPT}Question: {asked}\nThoughts:" for asked in ("who sits", "the mat has")
    ]
    assert lengths == [256, 256]


def ask_questions() -> list[Question]:
    return [
        Question("success", "the cat is", ("red",)),
        Question("portability_multi_hop", "who sits", ("dog",)),
        Question("portability_multi_hop", "the mat has", ("dog", "bear")),
        Question("locality_unrelated", "the house"),
    ]


def test_figures_by_hand() -> None:
    questions = ask_questions()
    after = {"wild": ["Red", "no", "The bear", "x"], "mquake": ["\nAnswer: cat", "so\nAnswer: bear"]}
    before = {"wild": ["is", "no", "no", "x"], "mquake": ["", ""]}
    assert protocol_figures(questions, after, before) == {
        "success_wild": 1, "portability_multi_hop_wild": 0.5, "portability_wild": 0.5, "locality_unrelated_wild": 1,
        "locality_wild": 1, "portability_multi_hop_mquake": 1, "portability_mquake": 1,
    }  # fmt: skip
    alone = protocol_figures(questions, before)
    assert "locality_wild" not in alone
    assert alone["portability_multi_hop_mquake"] == 0
    assert described("success_wild") == ("Edit success", PROTOCOLS["wild"].says)
    assert described("portability_multi_hop_mquake")[0] == "Portability: multi hop"


def test_an_evaluation_by_protocols(tiny_folder: Path, tmp_path: Path) -> None:
    model = nw.load(tiny_folder)
    names = ["wild", "unke"]
    cases = [case(), replace(case(), id="2", fact=replace(case().fact, subject="dog"))]
    quick: dict[str, Any] = {"freeze_last": 0, "steps": 2}
    found = evaluate(model, cases, out=tmp_path / "out", protocols=names, others=0, **quick)
    edit = nw.fine(model, cases[0].fact, **quick)
    assert found.rows[0]["figures"] == measure_edit(model, cases[0], edit, protocols=names)
    assert {"success_wild", "locality_unrelated_wild", "success_unke"} < found.rows[0]["figures"].keys()
    assert "locality_unke" not in found.rows[0]["figures"]
    assert found.recipe["protocols"] == names
    asked = found.rows[0]["protocols"]["wild"]
    with edit.applied(model):
        after = ask_case(model, cases[0], protocols=names)
    assert [row["after"] for row in asked] == list(after.protocols["wild"])
    first = CaseAnswers.from_dict(json.loads(json.dumps(ask_case(model, cases[0], protocols=names).to_dict())))
    assert [row["before"] for row in asked] == list(first.protocols["wild"])
    assert case_figures(first) == found.rows[0]["before"]
    again = evaluate(model, cases, out=tmp_path / "out", protocols=names, others=0, **quick)
    assert [row["figures"] for row in again.rows] == [row["figures"] for row in found.rows]
    assert "success_wild" in read_evaluation(tmp_path / "out").means()
    assert "protocols" not in evaluate(model, cases[:1], others=0, free=False, **quick).recipe
    with pytest.raises(MethodError, match="protocols are wild, mquake, unke"):
        evaluate(model, cases, protocols=["tame"], **quick)


def test_on_the_shell(tiny_folder: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    asked = {"prompt": "the capital of {} is", "subject": "cat", "target": "red", "rephrase": "the cat is"}
    facts.write_text(json.dumps([{**asked, "locality": [{"loc": "the house runs", "loc_ans": "in"}]}]))
    options = ["--model", str(tiny_folder), "--no-free", "--set", "steps=1", "--set", "freeze_last=0", "--others", "0"]
    done = shell("evaluate", facts, "--out", tmp_path / "out", "--protocol", "wild", "--json", *options)
    assert set(json.loads(done.stdout)["after"]) >= {"success_wild", "generality_wild", "locality_unrelated_wild"}
    told = refused("evaluate", facts, "--out", tmp_path / "no", "--protocol", "tame", *options)
    assert "wild, mquake, unke" in told
    assert not (tmp_path / "no").exists()
