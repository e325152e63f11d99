"""`neuronwise study`: run, resume, and what the shell is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from neuronwise.cli.progress import ProgressLines
from shell import shell
from wired_study import RECIPE, talking, write_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A folder with the wired model, the photos and a recipe."""
    folder = tmp_path_factory.mktemp("shell")
    model = talking(tiny_tokenizer)
    model.module.save_pretrained(folder / "model")
    model.processor.save_pretrained(folder / "model")
    write_photos(folder / "photos")
    keys = {**RECIPE, "model": str(folder / "model"), "methods": ["two_stage", "random"]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(keys))
    return folder


def test_running_and_going_on(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = shell("study", "run", folder / "recipe.yaml", "--data", folder / "photos", "--out", out, "--json")
    told = json.loads(done.stdout)
    assert (told["schema"], told["cases"], told["total"]) == ("neuronwise.studied/1", 2, 2)
    assert told["finished"]
    assert "10 photos (10 with annotated objects)" in done.stderr
    assert "cases 2/2" in done.stderr
    assert {path.name for path in out.iterdir()} == {
        "manifest.json", "before.jsonl", "cases.jsonl", "cases.parquet", "inpainted",
    }  # fmt: skip
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["data"]["folder"] == str(folder / "photos")
    assert manifest["versions"]["neuronwise"]
    lines = (out / "cases.jsonl").read_bytes()
    first, _ = lines.split(b"\n", 1)
    (out / "cases.jsonl").write_bytes(first + b'\n{"id": "torn')
    assert "2 of 2 cases, 0 failed" in shell("study", "resume", out).stdout
    rows = [json.loads(line) for line in (out / "cases.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [json.loads(line)["id"] for line in lines.splitlines()]
    other = shell("study", "run", folder / "recipe.yaml", "--data", folder / "photos", "--out", out,
                  "--dtype", "bfloat16", expect=2)  # fmt: skip
    assert "begun with dtype=None, not 'bfloat16'" in other.stderr


def test_what_is_wrong_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("kind: suppression\nK: [0]\nspam: 1\n")
    wrong = shell("study", "run", tmp_path / "wrong.yaml", "--out", tmp_path / "out", expect=2)
    assert "has 3 problems: methods: it is missing; K.0: " in wrong.stderr
    assert "spam: there is no such key" in wrong.stderr
    assert "--data DIR" in shell("study", "run", folder / "recipe.yaml", "--out", tmp_path / "out", expect=2).stderr
    assert "a shipped one: " in shell("study", "run", "spam", "--out", tmp_path / "out", expect=2).stderr
    assert "holds no study and no evaluation" in shell("study", "resume", tmp_path, expect=2).stderr
    run = ("study", "run", folder / "recipe.yaml", "--data", folder / "photos", "--out", tmp_path / "out")
    both = shell(*run, "--model", "one", "--set", "model=two", expect=2)
    assert "--model and --set model are both given; give one." in both.stderr
    null = shell(*run, "--set", "K=null", expect=2)  # it reaches the recipe, which takes none there
    assert "K: " in null.stderr
    assert not (tmp_path / "out").exists()


def test_progress_tells_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    told = ProgressLines(lambda: now[0])
    for done in range(1, 101):
        told("cases", done, 100)
        now[0] += 10.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "neuronwise: cases 1/100"
    assert lines[1] == "neuronwise: cases 4/100, about 16 min left"
    assert lines[-1] == "neuronwise: cases 100/100"
    assert len(lines) == 34


def test_of_many_concepts_without_a_case_the_first_are_named(folder: Path, tmp_path: Path) -> None:
    many = json.dumps(["car", "bus", "cat", "bird", "horse", "sheep"])
    run = ("study", "run", folder / "recipe.yaml", "--data", folder / "photos", "--set", f"concepts={many}")
    told = shell(*run, "--out", tmp_path / "none", expect=2).stderr
    assert "captioned ones (car: " in told
    assert "; and 2 more); give more photos" in told
