"""Nothing of a benchmark is dropped in silence: every field is read, or named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fact_records import COUNTERFACT, FLAT, KNOWEDIT, ZSRE
from neuronwise.answers.questions import questions_of
from neuronwise.data.facts import Facts, Probe, load_facts

EASYEDIT = {
    "Recalled Relation": "(Lake Constance, fed by, Rhine)",
    "New Question": "Which harbor has the city on Lake Constance?",
    "New Answer": "Port of Hamburg",
}
MQUAKE = {
    **{key: COUNTERFACT[key] for key in ("case_id", "requested_rewrite")},
    "questions": ["Which land lies beyond the sea of the Rhine?", "Beyond the Rhine's sea lies which land?"],
    "answer": "England",
    "new_answer": "Sweden",
    "new_answer_alias": ["Kingdom of Sweden"],
    "single_hops": [{"question": "Where does the Rhine end?", "answer": "North Sea"}],
    "orig": {"triples": []},
}


def read(folder: Path, *records: Any) -> Facts:
    path = folder / "facts.json"
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return load_facts(path)


def test_questions_of_several_hops_are_portability(tmp_path: Path) -> None:
    rewrite = {**MQUAKE["requested_rewrite"], "question": "Into which sea does the Rhine flow?"}
    facts = read(tmp_path, {**MQUAKE, "requested_rewrite": [rewrite]})
    (case,) = facts
    assert facts.form == "mquake"
    assert case.paraphrases == ("Into which sea does the Rhine flow?",)
    assert case.portability == {
        "multi_hop": tuple(Probe(asked, ("Sweden", "Kingdom of Sweden")) for asked in MQUAKE["questions"])
    }
    assert facts.unread == {"answer": 1, "single_hops": 1}
    assert "answer (in 1), single_hops (in 1)" in str(facts)


@pytest.mark.parametrize("record", [ZSRE, COUNTERFACT, FLAT])
def test_easyedit_adds_one_question_to_any_form(record: dict[str, Any], tmp_path: Path) -> None:
    facts = read(tmp_path, {**record, "portability": EASYEDIT})
    (case,) = facts
    assert case.portability == {"one_hop": (Probe(EASYEDIT["New Question"], ("Port of Hamburg",)),)}
    assert (facts.problems, facts.unread) == ((), {})


def test_vlkeb_asks_further_about_the_photo(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    hops = [
        {"port_type": f"{n}-hop", "Q&A": {"Question": f"Who {n}?", "Answer": f"Ann {n}", "Rest": "x"}} for n in (1, 2)
    ]
    facts = read(tmp_path, {"src": "What is this?", "alt": "plum", "image": "a.png", "port_new": [*hops, {}]})
    photo = str(tmp_path / "a.png")
    assert facts.cases[0].portability == {
        "1_hop": (Probe("Who 1?", ("Ann 1",), photo),),
        "2_hop": (Probe("Who 2?", ("Ann 2",), photo),),
    }
    assert facts.unread == {"port_new.Q&A.Rest": 1}
    assert "port_new 3 has no Q&A" in facts.problems[0].reason


def test_kinds_of_the_user_s_own_are_asked(tmp_path: Path) -> None:
    probes = [{"prompt": "Who paints?", "ground_truth": "Mira", "photo": "a.png"}]
    facts = read(
        tmp_path, {**KNOWEDIT, "portability": {"My Kind": probes, "x first": probes}, "locality": {"Near": probes}}
    )
    (case,) = facts
    assert case.portability == {"my_kind": (Probe("Who paints?", ("Mira",)),)}
    assert {"portability_my_kind", "locality_near"} < {question.part for question in questions_of(case)}
    assert facts.unread == {"portability.My Kind.photo": 1, "portability.x first.prompt": 1} | {
        "portability.x first.ground_truth": 1, "portability.x first.photo": 1, "locality.Near.photo": 1
    }  # fmt: skip
    assert "'x first'" in facts.problems[0].reason


def test_published_fields_leave_nothing_unread_and_null_is_nothing(tmp_path: Path) -> None:
    for record in (COUNTERFACT, FLAT, ZSRE, KNOWEDIT):
        assert read(tmp_path, {**record, "extra": None}).unread == {}
    assert read(tmp_path, {**FLAT, "extra": 0}, {**FLAT, "extra": "x"}).unread == {"extra": 2}
    assert read(tmp_path, {**FLAT, "extra": 1}).about()["unread"] == {"extra": 1}
