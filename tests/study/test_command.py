"""`neuronwise evaluate`: one result on standard output, a folder that can be gone on with and summed up again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from neuronwise.measure.bootstrap import mean_interval
from shell import refused, shell


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


def test_two_folders_are_compared_case_by_case(facts: Path, tiny_folder: Path, tmp_path: Path) -> None:
    options = ("-m", tiny_folder, "--set", "freeze_last=0", "--others", "0", "--no-free")
    for steps, seed in ((1, 0), (3, 1)):
        shell("evaluate", facts, *options, "--set", f"steps={steps}", "--seed", seed, "--out", tmp_path / str(steps))
    asked = ("evaluate", tmp_path / "1", tmp_path / "3")
    content = json.loads(shell(*asked, "--json").stdout)
    assert (content["schema"], content["first"]) == ("neuronwise.compared/1", "1")
    (other,) = content["others"]
    assert (other["name"], other["cases"], other["differs"]) == ("3", 3, ["changes", "seed"])
    rows = [
        [json.loads(line) for line in (tmp_path / steps / "cases.jsonl").read_text().splitlines()] for steps in "13"
    ]
    for name, paired in other["figures"].items():
        first, second = ([row["figures"][name] for row in found] for found in rows)
        between = mean_interval(b - a for a, b in zip(first, second, strict=True))
        assert between is not None
        assert paired["difference"] == asdict(between)
        assert paired["first"]["mean"] == pytest.approx(sum(first) / 3)
        assert paired["second"]["mean"] == pytest.approx(sum(second) / 3)
    assert any(paired["difference"]["mean"] for paired in other["figures"].values())
    shown = shell(*asked).stdout
    assert "Difference" in shown
    assert "Not the same in their recipes: changes, seed." in shown
    assert "is not an evaluation" in refused(*asked, facts)
    assert "--out" in refused(*asked, "--out", tmp_path / "x")

    lines = [{**row, "target_new": "blue"} for row in rows[1]]
    (tmp_path / "3" / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "Case '0' is another fact in each evaluation: its target_new" in refused(*asked)
    lines = [{name: value for name, value in row.items() if name != "prompt"} for row in rows[1]]
    (tmp_path / "3" / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "are damaged: 'prompt' is missing" in refused(*asked)
    lines = [{**row, "id": f"other {row['id']}"} for row in rows[1]]
    before = (tmp_path / "3" / "before.jsonl").read_text()
    (tmp_path / "3" / "before.jsonl").write_text(
        before.replace('"ids": ["0", "1", "2"]', '"ids": ["other 0", "other 1", "other 2"]')
    )
    (tmp_path / "3" / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "share no case" in refused(*asked)


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
