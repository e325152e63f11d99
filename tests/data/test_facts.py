"""Each form of editing benchmark as cases: hand-written records, and the real files counted anew."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import neuronwise as nw
from fact_records import COUNTERFACT, FLAT, KNOWEDIT, KNOWN, ZSRE
from neuronwise.data.facts import LOCALITY, PORTABILITY, Facts, Probe, load_facts
from neuronwise.data.facts.fact import subject_place


def read(folder: Path, *records: Any, name: str = "facts.json", **options: Any) -> Facts:
    path = folder / name
    path.write_text(json.dumps(list(records), ensure_ascii=False), encoding="utf-8")
    return load_facts(path, **options)


def test_counterfact_as_published(tmp_path: Path) -> None:
    facts = read(tmp_path, COUNTERFACT)
    (case,) = facts
    assert (facts.form, facts.problems, case.id) == ("counterfact", (), "7")
    assert case.fact == nw.Fact("The river {} flows into the", "Rhine", "Baltic Sea", "North Sea")
    assert case.paraphrases == tuple(COUNTERFACT["paraphrase_prompts"])
    assert case.generation == ("The Rhine ends where",)
    assert case.locality == {
        "neighborhood": tuple(Probe(p, ("North Sea",)) for p in COUNTERFACT["neighborhood_prompts"]),
        "attribute": (Probe("The river Oder flows into the", ("Baltic Sea",)),),
    }


def test_counterfact_in_flat_names_says_the_same_fact(tmp_path: Path) -> None:
    facts = read(tmp_path, FLAT)
    (case,) = facts
    assert facts.form == "counterfact"
    assert case.fact == read(tmp_path, COUNTERFACT).cases[0].fact
    assert case.paraphrases == ("Ships on the Rhine reach the",)
    assert case.locality == {"neighborhood": (Probe("The river Elbe flows into the", ("North Sea",)),)}


def test_zsre(tmp_path: Path) -> None:
    facts = read(tmp_path, ZSRE, {**ZSRE, "answers": []})
    case, without = facts
    assert facts.form == "zsre"
    assert case.fact == nw.Fact("Which city lies on {}?", "Lake Constance", "Hamburg", "Konstanz")
    assert without.fact.target_true == "Ulm"
    assert case.paraphrases == ("What is a city on Lake Constance?",)
    assert case.locality == {"unrelated": (Probe("nq question: who wrote faust", ("Goethe",)),)}


def test_knowedit(tmp_path: Path) -> None:
    facts = read(tmp_path, KNOWEDIT)
    (case,) = facts
    assert (facts.form, facts.problems) == ("knowedit", ())
    assert case.fact == nw.Fact("The place of birth of {} is", "Mira Holt", "Oslo", "Bergen")
    assert case.portability["subject_aliasing"][0].answers == ("Oslo", "Kristiania")
    assert [probe.answers for probe in case.portability["reasoning"]] == [("Norway",), ("Akerselva", "Alna")]
    assert case.portability["logical_generalization"] == (Probe("Was Mira Holt born in Oslo?", ("yes", "true")),)
    assert set(case.locality) == {"relation_specificity", "forgetfulness"}
    assert set(case.portability) <= set(PORTABILITY)
    assert set(case.locality) <= set(LOCALITY)
    assert facts.counts()["portability reasoning"] == 2
    assert "2 portability reasoning" in str(facts)


def test_knowedit_wikibio_and_lists_side_by_side(tmp_path: Path) -> None:
    bio: dict[str, Any] = {"concept": "mira holt", "text": "A page about mira holt.", "labels": "She paints."}
    columns = {"prompt": ["One of Mira Holt", "Two of Mira Holt"], "ground_truth": [["a"], ["b", "c"]]}
    bio["locality"] = {"Relation_Specificity": columns}
    (case,) = read(tmp_path, bio)
    assert case.fact == nw.Fact("A page about {}.", "mira holt", "She paints.")
    assert [probe.answers for probe in case.locality["relation_specificity"]] == [("a",), ("b", "c")]


def test_knowedit_parts_that_cannot_be_used_are_named_and_the_case_stays(tmp_path: Path) -> None:
    record = {
        **KNOWEDIT,
        "ground_truth": 5,
        "portability": {"Reasoning": [{"prompt": "Who?", "ground_truth": [[""]]}, {"ground_truth": "x"}], "Odd": ["x"]},
        "locality": {"Forgetfulness": [{"prompt": "What else?"}], "Relation_Specificity": "none"},
    }
    facts = read(tmp_path, record)
    (case,) = facts
    assert case.portability == {}
    assert case.locality == {"forgetfulness": (Probe("What else?"),)}
    assert case.fact.target_true is None
    assert facts.left_out == ()
    reasons = " ".join(problem.reason for problem in facts.problems)
    for word in (
        "ground_truth is a number",
        "answer is empty",
        "'Who?' has no answer",
        "probe 2 has no prompt",
        "Odd probe 1",
    ):
        assert word in reasons
    assert all(problem.where == "facts.json, record 1" and problem.kept for problem in facts.problems)


def test_known_facts_get_another_records_attribute(tmp_path: Path) -> None:
    facts = read(tmp_path, *KNOWN)
    targets = {case.fact.subject: case.fact.target_new for case in facts}
    assert facts.form == "known_facts"
    assert [case.fact.target_true for case in facts] == ["America", "Africa", "Asia", "Europe"]
    assert targets["Peru"] in {"Africa", "Asia"}  # the same template goes before the same relation
    assert targets["Rome"] in {"America", "Africa"}  # its template has no other attribute, its relation has
    assert facts.cases[2].fact.prompt == "{} lies in far"
    # neither the order nor the count of unrelated records matters, the seed does
    assert {c.fact.subject: c.fact.target_new for c in read(tmp_path, *reversed(KNOWN))} == targets
    seen = {tuple(c.fact.target_new for c in read(tmp_path, *KNOWN, seed=seed)) for seed in range(20)}
    assert len(seen) > 1


def test_known_facts_never_get_what_is_true_of_the_subject(tmp_path: Path) -> None:
    second = {**KNOWN[0], "known_id": 9, "attribute": "africa"}
    for seed in range(10):
        facts = read(tmp_path, KNOWN[0], KNOWN[1], second, seed=seed)
        assert [case.fact.subject for case in facts] == ["Mali"]
        assert [p.where for p in facts.left_out] == ["facts.json, record 1", "facts.json, record 3"]
        assert "no other record" in facts.left_out[0].reason


def test_mmedit_finds_its_photos_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / f"{name}.png")
    record = {
        "src": "What fruit is this?", "rephrase": "Which fruit lies here?", "pred": "pear", "alt": "plum",
        "image": "photos/a.png", "image_rephrase": "photos/b.png",
        "loc": "nq question: who wrote faust", "loc_ans": "Goethe",
        "m_loc": "photos/c.png", "m_loc_q": "What color is it?", "m_loc_a": "red",
    }  # fmt: skip
    facts = read(tmp_path, record, {**record, "image": "gone.png"}, {**record, "m_loc": "gone.png"})
    case, partly = facts
    photo = {name: str(tmp_path / "photos" / f"{name}.png") for name in "abc"}
    assert facts.form == "mmedit"
    assert case.fact == nw.Fact("{}", "What fruit is this?", "plum", "pear", photo["a"])
    assert case.fact.text == "What fruit is this?"
    assert case.portability == {"image_generality": (Probe("What fruit is this?", ("plum",), photo["b"]),)}
    assert case.locality["unrelated_image"] == (Probe("What color is it?", ("red",), photo["c"]),)
    assert "unrelated_image" not in partly.locality
    assert [(problem.where[-1], problem.kept) for problem in facts.problems] == [("2", False), ("3", True)]
    assert "gone.png" in facts.problems[0].reason
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    assert len(read(elsewhere, record, images=tmp_path)) == 1
    with pytest.raises(nw.NeuronwiseError, match="images= names the folder"):
        read(elsewhere, record)


def test_a_form_can_be_named_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    facts = read(tmp_path, {**FLAT, "rephrase": "By the Rhine to the"}, form="counterfact")
    assert (facts.form, len(facts)) == ("counterfact", 1)
    with pytest.raises(
        nw.NeuronwiseError, match="forms of facts are known_facts, counterfact, mquake, knowedit, zsre, mmedit"
    ):
        read(tmp_path, FLAT, form="wise")
    with pytest.raises(nw.NeuronwiseError, match="no field 'src'"):
        read(tmp_path, FLAT, form="zsre")


def test_a_field_that_is_null_is_no_field(tmp_path: Path) -> None:
    facts = read(tmp_path, {**ZSRE, "image": None, "requested_rewrite": None, "pred": None, "rephrase": None})
    assert (facts.form, facts.problems, facts.cases[0].paraphrases) == ("zsre", (), ())


def test_a_target_that_is_the_present_answer_is_no_error(tmp_path: Path) -> None:
    facts = read(tmp_path, {**FLAT, "target_new": "North Sea"})
    assert (facts.cases[0].fact.target_new, facts.problems) == ("North Sea", ())


# Real files: every count is taken again from the raw JSON.


@pytest.mark.long
def test_real_counterfact(data: Path) -> None:
    path = data / "counterfact-2000.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    facts = load_facts(path)
    assert (len(facts), facts.problems, facts.form) == (len(raw), (), "counterfact")
    assert facts.counts() == {"paraphrases": len(raw), "locality neighborhood": len(raw)}
    for case, record in zip(facts, raw, strict=True):
        assert case.id == str(record["case_id"])
        assert case.fact.text == record["prompt"].strip()
        assert case.fact.prompt == record["prompt"].replace(record["subject"], "{}")
        assert (case.fact.target_new, case.fact.target_true) == (record["target_new"], record["ground_truth"])
        assert case.locality["neighborhood"][0].prompt == record["locality_prompt"].strip()


@pytest.mark.long
def test_real_zsre(data: Path) -> None:
    path = data / "zsre-500.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    facts = load_facts(path)
    assert (len(facts), facts.problems, facts.form) == (len(raw), (), "zsre")
    assert facts.counts() == {"paraphrases": len(raw), "locality unrelated": len(raw)}
    for case, record in zip(facts, raw, strict=True):
        assert case.fact.text == record["src"]
        assert case.fact.target_new == record["alt"].strip()
        assert case.fact.target_true == record["answers"][0].strip()


@pytest.mark.long
def test_real_known_facts(data: Path) -> None:
    path = data / "known-facts.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    facts = load_facts(path)
    # The one twin city of the file has nobody to borrow a target from.
    relations = Counter(record["relation_id"] for record in raw)
    alone = [n for n, record in enumerate(raw, 1) if relations[record["relation_id"]] == 1]
    assert [problem.where for problem in facts.problems] == [f"known-facts.json, record {n}" for n in alone]
    assert len(facts) == len(raw) - len(alone)
    by_id = {str(record["known_id"]): record for record in raw}
    for case in facts:
        record = by_id[case.id]
        assert case.fact.text == record["prompt"]
        assert case.fact.target_true == record["attribute"] != case.fact.target_new
        same = [other for other in raw if other["relation_id"] == record["relation_id"]]
        assert case.fact.target_new in {other["attribute"] for other in same} | {
            other["attribute"] for other in raw if other["template"] == record["template"]
        }


def test_a_subject_that_stands_once_needs_no_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells words of their own takes long to compile: thousands of facts would take minutes."""
    monkeypatch.setattr("neuronwise.data.facts.fact.apart", lambda _: pytest.fail("compiled"))
    assert subject_place("The capital of France is", "France") == 15
    assert subject_place("The capital of France is", "Rome") is None


def test_the_last_place_of_a_word_may_overlap_another() -> None:
    assert subject_place("Anew new new", "new new") == 5
    assert subject_place("The anew newt", "new new") == 5


def test_facts_that_share_an_id_are_numbered_without_looking_back(tmp_path: Path) -> None:
    """Operations are counted: each record asks whether two names are taken, however many came before it."""
    from neuronwise.data.facts.load import _Reader
    from neuronwise.data.facts.rows import Row

    class Counting(set[str]):
        asked = 0

        def __contains__(self, name: object) -> bool:
            Counting.asked += 1
            return super().__contains__(name)

    record = {"prompt": "The capital of {} is", "subject": "France", "target_new": "Rome", "case_id": 7}
    reader = _Reader(0, None, several=False)
    reader._taken = Counting()
    count = 500
    reader.read(
        "a.json", [Row("a.json", number, dict(record), "a.json", tmp_path) for number in range(count)], "counterfact"
    )
    assert [case.id for case in reader.cases] == ["7", *(f"7-{number}" for number in range(2, count + 1))]
    assert Counting.asked <= 2 * count
