"""MC-MKE: records of the published fields, alone and joined from the files of a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import neuronwise as nw
from fact_records import HOME, IRO
from neuronwise.data.facts import Probe, load_facts

IE: dict[str, dict[str, Any]] = {
    "final_ie_edit_input": {
        "relation": "capital", "e_ent": "Norway", "new_e_ent": "Peru", "new_e_ent_alias": ["PE"],
        "ie_question": "Which country is shown?", "ie_cloze": "The country shown is", "locality_test": [3],
        "images": [f"{HOME}a.png", f"{HOME}b.png"],
        "ie_question_paraphrases": {
            "ie_question": "Which country is shown?", "ie_ques_paraphrases": ["What land is it?"]
        },
    },
    "final_ie_edit_reliability_test": {
        "image": f"{HOME}a.png", "input_cloze": "The country shown is", "new_e_ent": "Peru", "orig_e": "Norway",
        "new_e_ent_alias": ["PE"],
    },
    "final_ie_locality_test": {
        "locality_test_dict": {
            "3": {"image": f"{HOME}c.png", "ie_question": "Who is this?", "orig_loc_ent": "Mira Holt",
                  "orig_loc_ent_alias": ["M. Holt"]}
        },
    },
    "final_ie_test_consistency": {
        "consistency_iro_image": f"{HOME}a.png", "consistency_iro_input_cloze": "The capital of the country shown is",
        "consistency_iro_output": "Lima", "consistency_iro_output_alias": ["Lima, Peru"],
    },
    "final_ie_test_image_generality": {
        "ie_cloze": "The country shown is", "generality_images": [f"{HOME}b.png", f"{HOME}d.png"], "new_e_ent": "Peru",
        "new_e_ent_alias": ["PE"],
    },
    "final_ie_test_text_generality": {
        "image": f"{HOME}a.png", "ie_question_paraphrases": ["Which country is it?"], "new_e_ent": "Peru",
        "new_e_ent_alias": ["PE"],
    },
}  # fmt: skip
SRO = {
    "sro_edit_input_idx": 2, "s": "Norway", "r": "capital", "o": "Oslo", "new_o": "Lima", "new_o_alias": ["L."],
    "cloze": "The capital of Norway is", "question": "What is the capital of Norway?", "para_question": "\n\nName it.",
    "para_cloze": "Norway's capital is", "image": "", "mq_idxs": {"case_id": 88}, "ie_idxs": [1],
    "consistency_data_image": f"{HOME}a.png", "consistency_data_irocloze": "The capital of the country shown is",
    "consistency_new_o": "Lima", "consistency_new_o_alias": ["L."],
    "locality_test_dict": {"7": {"image": "", "sro_question": "Where is Oslo?", "orig_loc_output_ent": "Norway",
                                 "orig_loc_output_ent_alias": ["NO"]}},
}  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "abcd":
        Image.new("RGB", (4, 4)).save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in "abcd"}


def write(folder: Path, name: str, *records: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


def test_the_files_of_a_folder_are_joined_by_their_number(tmp_path: Path, photos: dict[str, str]) -> None:
    for name, fields in IE.items():
        write(tmp_path / "ie_edit", name, {"ie_edit_input_idx": 0, **fields}, {"ie_edit_input_idx": 1, **fields})
    facts = load_facts(tmp_path / "ie_edit", images=tmp_path / "images")
    assert (facts.form, facts.problems, dict(facts.unread)) == ("mcmke", (), {})
    assert [case.id for case in facts] == ["0", "1"]
    case = facts[0]
    assert case.fact == nw.Fact("{}", "The country shown is", "Peru", "Norway", photos["a"])
    assert case.paraphrases == ("Which country is shown?", "Which country is it?")
    assert case.portability == {
        "image_generality": tuple(Probe("The country shown is", ("Peru", "PE"), photos[name]) for name in "bd"),
        "consistency": (Probe("The capital of the country shown is", ("Lima", "Lima, Peru"), photos["a"]),),
    }
    assert case.locality == {"unrelated_image": (Probe("Who is this?", ("Mira Holt", "M. Holt"), photos["c"]),)}


def test_the_file_of_the_edits_will_do(tmp_path: Path, photos: dict[str, str]) -> None:
    fields = {"ie_edit_input_idx": 0, **IE["final_ie_edit_input"]}
    facts = load_facts(write(tmp_path, "edits", fields), images=tmp_path / "images")
    (case,) = facts
    assert (facts.form, facts.problems, dict(facts.unread)) == ("mcmke", (), {})
    assert case.fact == nw.Fact("{}", "The country shown is", "Peru", "Norway", photos["a"])
    assert case.paraphrases == ("Which country is shown?", "What land is it?")
    assert [probe.image for probe in case.portability["image_generality"]] == [photos["b"]]


def test_facts_about_photos_and_facts_in_words(tmp_path: Path, photos: dict[str, str]) -> None:
    about = load_facts(write(tmp_path, "iro", IRO), images=tmp_path / "images")
    case = about[0]
    assert (about.problems, dict(about.unread), case.id) == ((), {}, "4")
    assert case.fact == nw.Fact("{}", "The capital of the country shown is", "Lima", "Oslo", photos["a"])
    assert case.portability["consistency"] == (Probe("The capital of Norway is", ("Lima", "L.")),)
    assert case.locality == {"unrelated_image": (Probe("Who wrote it?", ("Ann",), photos["c"]),)}

    words = load_facts(write(tmp_path, "sro", SRO), images=tmp_path / "images")
    case = words[0]
    assert (words.problems, dict(words.unread), case.id) == ((), {}, "2")
    assert case.fact == nw.Fact("The capital of {} is", "Norway", "Lima", "Oslo")
    assert case.paraphrases == ("What is the capital of Norway?", "Name it.", "Norway's capital is")
    assert case.portability == {
        "consistency": (Probe("The capital of the country shown is", ("Lima", "L."), photos["a"]),)
    }
    assert case.locality == {"unrelated": (Probe("Where is Oslo?", ("Norway", "NO")),)}


def test_what_is_missing_is_named(tmp_path: Path, photos: dict[str, str]) -> None:
    gone = {
        **IRO,
        "images": [f"{HOME}a.png", f"{HOME}x.png"],
        "locality_test_dict": {"9": {"image": "", "iro_question": "?"}},
    }
    path = write(
        tmp_path, "iro", gone, {**IRO, "images": None}, {**IRO, "images": [f"{HOME}y.png"]}, {**IRO, "new_o": None}
    )
    facts = load_facts(path, images=tmp_path / "images")
    assert len(facts) == 1
    told = [(problem.where, problem.reason) for problem in facts.problems]
    for (where, reason), line, words in zip(
        told, (1, 1, 2, 3, 4),
        ("x.png", "locality_test_dict 9 has no iro_question with orig_loc_output_ent", "no field 'image' or 'images'",
         "y.png", "no field 'new_o'"), strict=True,
    ):  # fmt: skip
        assert where == f"iro.jsonl, line {line}"
        assert words in reason


def test_lines_that_only_one_file_has_are_named_at_their_place(tmp_path: Path, photos: dict[str, str]) -> None:
    folder = tmp_path / "ie_edit"
    write(folder, "a", {"ie_edit_input_idx": 0, **IE["final_ie_edit_input"]})
    write(folder, "b", {"ie_edit_input_idx": 5, **IE["final_ie_test_consistency"]})
    write(folder, "c", {"ie_edit_input_idx": None})
    facts = load_facts(folder, images=tmp_path / "images")
    assert [case.id for case in facts] == ["a-0"]
    assert str(facts.problems[0]) == "b.jsonl, line 1: it has no field 'ie_cloze' or 'input_cloze'."
