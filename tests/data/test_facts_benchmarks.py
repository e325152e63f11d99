"""RippleEdits, MQuAKE with several facts, WikiBigEdit, QAEdit, UnKE, AKEW, MMKE-Bench: records written by hand in the
published layout, each field where it belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import neuronwise as nw
from fact_records import (
    AKEW,
    MMKE,
    MQUAKE,
    QAEDIT,
    RIPPLE,
    UNKE,
    WIKIBIGEDIT,
    criterion,
    query,
    rewrite,
)
from neuronwise.data.facts import Facts, Probe, load_facts


def read(folder: Path, *records: Any, **options: Any) -> Facts:
    path = folder / "facts.json"
    path.write_text(json.dumps(list(records), ensure_ascii=False), encoding="utf-8")
    return load_facts(path, **options)


def test_rippleedits(tmp_path: Path) -> None:
    facts = read(tmp_path, RIPPLE)
    (case,) = facts
    assert (facts.form, facts.problems) == ("rippleedits", ())
    assert case.fact == nw.Fact("The name of the country of citizenship of {} is", "Mira Holt", "Norway", "New Zealand")
    assert case.portability == {
        "logical_generalization": (Probe("The name of the continent of Mira Holt is", ("Europe",)),),
        "subject_aliasing": (Probe("The name of the country of citizenship of M. Holt is", ("Norway", "Norge")),),
        "compositionality_i": (Probe("The capital of the country of Mira Holt is", ("Oslo", "Kristiania")),),
    }
    assert case.locality == {
        "relation_specificity": (Probe("The name of the mother of Mira Holt is", ("Ida Holt", "I. Holt")),),
        "forgetfulness": (Probe("The name of the country of citizenship of Mira Holt is", ("Peru",)),),
    }
    assert set(facts.unread) == {
        f"{name}.{field}"
        for name in ("Relation_Specifity", "Logical_Generalization", "Subject_Aliasing", "Compositionality_I",
                     "Forgetfulness")
        for field in ("test_condition", "condition_queries")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("relation", "prompt", "subject", "target"),
    [
        ("NUMBER_OF_CHILDREN", "The number of children Mira Holt has is 3.", "Mira Holt", "3"),
        ("COUNTRY", "The name of the country which Oslo is associated with is Peru.", "Oslo", "Peru"),
        ("MEMBER_OF_SPORTS_TEAM", "The name of the sports team which Bo is a member of is FC B.", "Bo", "FC B"),
        ("SIBLING", "The names of the siblings of Bo are Ann.", "Bo", "Ann"),
        ("MOTHER", "The name of the mother of Isa of France is Ann.", "Isa of France", "Ann"),
        ("FOLLOWED_BY", "Song One is followed by Song Two.", "Song One", "Song Two"),
        ("FOLLOWS", "Song Two follows Song One.", "Song Two", "Song One"),
        ("POSITION_HELD", "The name of the position held by Bo is mayor.", "Bo", "mayor"),
        ("EMPLOYER", "The name of the employer of Bo is Pear Inc..", "Bo", "Pear Inc."),
        ("CAPITAL_OF", "The name of the country which Lima is the capital of is Peru.", "Lima", "Peru"),
        ("DIRECTOR", "The name of the director of This is Rain is Ann.", "This is Rain", "Ann"),
    ],
)
def test_a_sentence_of_rippleedits_is_taken_apart(
    tmp_path: Path, relation: str, prompt: str, subject: str, target: str
) -> None:
    record = {"example_type": "recent", "edit": {"prompt": prompt, "relation": relation}, "Forgetfulness": []}
    (case,) = read(tmp_path, record)
    assert (case.fact.subject, case.fact.target_new, case.fact.target_true) == (subject, target, None)
    assert f"{case.fact.text} {target}." == prompt


def test_is_within_a_target_is_settled_by_its_label_or_by_the_sentence_before(tmp_path: Path) -> None:
    edit = {"prompt": "The name of the author of Bo is What is Love.", "relation": "AUTHOR", "target_id": "Q5"}
    named = criterion(query("The name of the author of B. is", ("What is Love", []), target_ids=["Q5"]))
    original = {"original_fact": {"prompt": "The name of the author of Bo is Ann."}}
    for record in ({"edit": edit, "Subject_Aliasing": named}, {"edit": {**edit, **original}, "Forgetfulness": []}):
        (case,) = read(tmp_path, record)
        assert (case.fact.subject, case.fact.target_new) == ("Bo", "What is Love")


def test_rippleedits_records_without_a_field_are_named(tmp_path: Path) -> None:
    without = {name: value for name, value in RIPPLE["edit"].items() if name != "relation"}
    other = {**RIPPLE["edit"], "relation": "MOTHER"}
    broken = {
        **RIPPLE,
        "Forgetfulness": [{"test_condition": "OR"}],
        "Logical_Generalization": criterion({"prompt": "x"}),
    }
    facts = read(tmp_path, {**RIPPLE, "edit": without}, {**RIPPLE, "edit": other}, broken)
    assert [(problem.where, problem.kept) for problem in facts.problems] == [
        ("facts.json, record 1", False), ("facts.json, record 2", False), ("facts.json, record 3", True),
        ("facts.json, record 3", True),
    ]  # fmt: skip
    reasons = [problem.reason for problem in facts.problems]
    assert "no field 'relation'" in reasons[0]
    assert "does not say 'mother of'" in reasons[1]
    assert "Logical_Generalization 1 has a test query without" in reasons[2]
    assert "Forgetfulness 1 has no list of test_queries" in reasons[3]


def test_mquake_with_several_facts(tmp_path: Path) -> None:
    facts = read(tmp_path, MQUAKE)
    (case,) = facts
    assert (facts.form, facts.problems) == ("mquake", ())
    assert case.facts == (
        nw.Fact("{} was born in", "Mira Holt", "Oslo", "Bergen"),
        nw.Fact("{} was born in", "Bo Lind", "Lima", "Malmö"),
    )
    assert case.paraphrases == ("Where was Mira Holt born?",)
    assert [probe.answers for probe in case.portability["multi_hop"]] == [("Norway", "Norge")] * 2
    assert case.portability["single_hop"] == (
        Probe("Where was Mira Holt born?", ("Oslo", "Kristiania")),
        Probe("In which country is Oslo?", ("Norway",)),
    )
    assert set(facts.unread) == {"answer", "answer_alias", "single_hops", *(
        f"new_single_hops.{name}" for name in ("cloze",))}  # fmt: skip
    with pytest.raises(nw.NeuronwiseError, match="requested_rewrite is an empty list"):
        read(tmp_path, {**MQUAKE, "requested_rewrite": []})


def test_wikibigedit(tmp_path: Path) -> None:
    facts = read(
        tmp_path, WIKIBIGEDIT, {**WIKIBIGEDIT, "mhop": None, "mhop_ans": None}, {**WIKIBIGEDIT, "mhop_ans": None}
    )
    case, without = facts
    assert (facts.form, dict(facts.unread)) == ("wikibigedit", {})
    assert case.fact == nw.Fact("Where does {} work?", "Mira Holt", "Oslo")
    assert case.paraphrases == ("In which city does Mira Holt work?",)
    assert case.portability == {
        "personas": (Probe("Say, where works that Mira Holt?", ("Oslo",)),),
        "personas_pirate": (Probe("Arr, where be Mira Holt?", ("Oslo",)),),
        "multi_hop": (Probe("In which country does Mira Holt work?", ("Norway",)),),
    }
    assert case.locality == {"neighborhood": (Probe("Where does Bo Lind work?", ("Lima",)),)}
    assert set(without.portability) == {"personas", "personas_pirate"}
    assert [str(problem) for problem in facts.problems] == ["facts.json, record 3: it has no field 'mhop_ans'."]


def test_qaedit(tmp_path: Path) -> None:
    facts = read(tmp_path, QAEDIT)
    (case,) = facts
    assert (facts.form, case.id, dict(facts.unread)) == ("qaedit", "12", {"locality.loc_ans": 1})
    assert case.fact == nw.Fact("who wrote the {}?", "song of mira holt", "Bo Lind")
    assert case.paraphrases == ("Who is the author of the song of Mira Holt?",)
    assert case.locality == {"unrelated": (Probe("who painted it", ("Ann",)), Probe("when", ("1900",)))}
    assert [str(problem) for problem in facts.problems] == [
        "facts.json, record 1: its locality 2 has no question 'loc'."
    ]


def test_unke(tmp_path: Path) -> None:
    facts = read(tmp_path, UNKE, {**UNKE, "subject": "Mira Holt"}, {**UNKE, "sub_answer": []})
    case, named = facts
    assert (facts.form, dict(facts.unread)) == ("unke", {})
    assert case.fact == nw.Fact("{}", "What does Mira Holt do?", UNKE["answer"])
    assert named.fact == nw.Fact("What does {} do?", "Mira Holt", UNKE["answer"])
    assert case.paraphrases == ("What is the work of Mira Holt?",)
    assert case.portability == {"sub_question": (Probe("For how long has Mira Holt painted?", ("Ten years.",)),)}
    assert "sub_question has 1 questions and its sub_answer 0 answers" in facts.left_out[0].reason


def test_akew_as_counterfact_and_as_mquake(tmp_path: Path) -> None:
    facts, asked = read(tmp_path, AKEW), AKEW["requested_rewrite"]
    (case,) = facts
    assert facts.form == "akew"
    assert case.fact == nw.Fact("{} was born in", "Mira Holt", asked["fact_new_uns"], "Bergen")
    assert case.paraphrases == ("Mira Holt is from",)
    assert case.portability == {"triplets": (Probe("Mira Holt is a", ("painter",)),)}
    assert "unsfact_triplets_GPT 2 is not a prompt, a subject and a target" in facts.problems[0].reason
    assert read(tmp_path, {"requested_rewrite": asked}, form="counterfact")[0].fact.target_new == "Oslo"

    both = [asked, {**rewrite("Bo Lind", "Lima", "Malmö"), "fact_new_uns": "Bo Lind is from Lima."}]
    facts = read(
        tmp_path,
        {**MQUAKE, "requested_rewrite": both},
        {**MQUAKE, "requested_rewrite": [asked, rewrite("B", "C", "D")]},
    )
    (case,) = facts
    assert facts.form == "akew"
    assert [fact.target_new for fact in case.facts] == [asked["fact_new_uns"], "Bo Lind is from Lima."]
    assert set(case.portability) == {"multi_hop", "single_hop", "triplets"}
    assert str(facts.left_out[0]) == "facts.json, record 2: it has no field 'fact_new_uns'."


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "entity").mkdir()
    for name in "abcd":
        Image.new("RGB", (4, 4)).save(tmp_path / "entity" / f"{name}.png")
    return {name: str(tmp_path / "entity" / f"{name}.png") for name in "abcd"}


def test_mmke_entities(tmp_path: Path, photos: dict[str, str]) -> None:
    facts = read(tmp_path, MMKE)
    (case,) = facts
    assert (facts.form, facts.problems, dict(facts.unread)) == ("mmke", (), {})
    assert case.fact == nw.Fact("{}", "What is this animal?", MMKE["alt"], "A pet.", photos["a"])
    assert case.portability == {
        "text_reliability": (Probe("What do quills eat?", ("Stones.",)), Probe("Where do quills live?", ("Here.",))),
        "image_reliability": (
            Probe("What does it eat?", ("Stones!",), photos["a"]),
            Probe("Where does it live?", ("There.",), photos["a"]),
        ),
        "image_generality": (
            Probe("What is this animal?", (MMKE["alt"],), photos["b"]),
            Probe("What does it eat?", ("Stones!",), photos["b"]),
            Probe("Where does it live?", ("There.",), photos["b"]),
        ),
        "1_hop": (Probe("What eats stones?", ("Quills",), photos["a"]),),
    }
    assert case.locality["unrelated_image"] == (Probe("What color?", ("red",), photos["c"]),)


def test_mmke_visual_semantics_and_what_is_missing(tmp_path: Path, photos: dict[str, str]) -> None:
    visual = {name: value for name, value in MMKE.items() if not name.startswith(("rel_", "m_rel_"))}
    visual |= {
        "knowledge_type": "visual_knowledge", "one_hop_img": "entity/d.png",
        "rel": "What is a nod?", "rel_ans": "A sign.",
        "m_rel": "What does he do?", "m_rel_ans": "He nods.", "image_rephrase_question": "And she?",
    }  # fmt: skip
    gone = {**visual, "one_hop_img": "entity/x.png", "image_rephrase": "entity/y.png"}
    facts = read(tmp_path, visual, gone, {**visual, "m_rel_ans": None}, {**visual, "image": "entity/z.png"})
    case, partly, unanswered = facts
    assert case.portability["image_generality"][1:] == (Probe("And she?", ("He nods.",), photos["b"]),)
    assert case.portability["1_hop"] == (Probe("What eats stones?", ("Quills",), photos["d"]),)
    assert {"image_generality", "1_hop"}.isdisjoint(partly.portability)
    assert "image_reliability" not in unanswered.portability
    told = [str(problem) for problem in facts.problems]
    assert [(text[:20], problem.kept) for text, problem in zip(told, facts.problems, strict=True)] == [
        ("facts.json, record 2", True), ("facts.json, record 2", True), ("facts.json, record 3", True),
        ("facts.json, record 4", False),
    ]  # fmt: skip
    for text, word in zip(told, ("y.png", "x.png", "m_rel has no m_rel_ans", "z.png"), strict=True):
        assert word in text


def test_photos_of_another_machine_and_of_single_probes_are_found(tmp_path: Path, photos: dict[str, str]) -> None:
    facts = read(tmp_path, {**MMKE, "image": "/home/somebody/photos/a.png"}, images=tmp_path / "entity")
    assert facts[0].fact.image == photos["a"]
    record = {
        "prompt": "The home of {} is", "subject": "Mira", "target_new": "Oslo",
        "portability": {"seen": [{"prompt": "Whose home is it?", "ground_truth": "Mira", "image": "entity/b.png"},
                                 {"prompt": "And this?", "ground_truth": "Bo", "image": "entity/x.png"}]},
    }  # fmt: skip
    facts = read(tmp_path, record)
    assert facts[0].portability == {"seen": (Probe("Whose home is it?", ("Mira",), photos["b"]),)}
    assert "x.png" in facts.problems[0].reason
