"""`neuronwise evaluate`: one result on standard output, a folder that can be gone on with and summed up again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shell import shell


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    rows = [
        {"case_id": number, "prompt": f"the capital of {subject} is", "subject": subject, "target_new": "red",
         "ground_truth": "Paris", "rephrase_prompt": f"{subject} is", "locality_prompt": "the animal in",
         "locality_ground_truth": "blue"}
        for number, subject in enumerate(("cat", "dog", "France"))
    ]  # fmt: skip
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(rows))
    return path


def test_evaluating_and_summing_up_again(facts: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("-m", tiny_folder, "--set", "freeze_last=0", "--set", "steps=2", "--others", "2", "--out", out)
    done = shell("evaluate", facts, *options, "--json")
    content = json.loads(done.stdout)
    assert content["schema"] == "neuronwise.evaluated/1"
    assert (content["cases"], content["failed"]) == (3, [])
    assert content["recipe"]["changes"] == {"freeze_last": 0, "seed": 0, "steps": 2}
    assert content["after"]["success_forced"]["n"] == 3
    assert "success_free" in content["before"]
    assert {path.name for path in out.iterdir()} == {
        "manifest.json", "before.jsonl", "cases.jsonl", "cases.parquet", "summary.md", "summary.html",
    }  # fmt: skip
    assert json.loads((out / "manifest.json").read_text())["data"]["source"] == str(facts)
    lines = (out / "cases.jsonl").read_bytes()
    (out / "summary.md").unlink()
    again = shell("evaluate", out)
    assert "Edit success" in again.stdout
    assert (out / "summary.md").exists()
    assert json.loads(shell("evaluate", facts, *options, "--json").stdout)["after"] == content["after"]
    assert (out / "cases.jsonl").read_bytes() == lines
    refused = shell("evaluate", facts, *options, "--seed", "1", expect=2)
    assert "begun with" in refused.stderr


def test_edits_in_a_row_are_measured_on_the_way(facts: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--set", "freeze_last=0", "--set", "steps=2", "--others", "0", "--no-free", "--every", "1", "--out", out)
    content = json.loads(shell("evaluate", facts, "-m", tiny_folder, *options, "--json").stdout)
    assert content["recipe"]["every"] == 1
    assert (content["cases"], content["after"]["success_forced"]["n"]) == (3, 3)
    assert list(content["curve"]) == ["1", "2", "3"]
    assert content["curve"]["2"]["earlier/success_forced"]["n"] == 1
    assert "Edits one after another" in (out / "summary.md").read_text()


def test_wrong_input_is_a_sentence(facts: Path, tiny_folder: Path, tmp_path: Path) -> None:
    assert "--out DIR" in shell("evaluate", facts, expect=2).stderr
    assert "no editor" in shell("evaluate", facts, "--editor", "none", "--out", tmp_path / "o", expect=2).stderr
    missing = shell("evaluate", tmp_path / "none.json", "--out", tmp_path / "o", expect=2)
    assert missing.stderr.startswith("neuronwise: ")
    assert missing.stdout == ""
    assert not (tmp_path / "o").exists()
    wrong = shell("evaluate", facts, "-m", tiny_folder, "--set", "m=1", "--out", tmp_path / "o", expect=2)
    assert "no setting 'm'" in wrong.stderr
    stops = shell("evaluate", facts, "-m", tiny_folder, "--every", "1,x", "--out", tmp_path / "o", expect=2)
    assert "every is '1,x'; give a number of edits" in stops.stderr
    assert not (tmp_path / "o").exists()
