"""Perplexity of a text of any length against plain passes, and tasks of lm-evaluation-harness."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from edits import same, weights
from neuronwise.answers.perplexity import perplexity
from neuronwise.data.facts import Fact, FactCase
from neuronwise.errors import DataError, MethodError
from neuronwise.measure.tasks import Tasks, _loading, _why
from neuronwise.study import evaluate
from neuronwise.study.evaluation.figure_names import described, ordered
from shell import shell

TEXT = "the cat sits on the red mat and the dog runs in the house of France " * 4
QUICK: dict[str, Any] = {"freeze_last": 0, "steps": 2, "others": 0, "free": False}


@pytest.fixture
def model(tiny_folder: Path) -> nw.Model:
    return nw.load(tiny_folder)


def cases(count: int = 2) -> list[FactCase]:
    return [FactCase(name, Fact("the capital of {} is", name, "red", "Paris")) for name in ("cat", "dog")[:count]]


def test_what_a_task_prints_while_it_fails_stays_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MethodError, match="'own' cannot be loaded: ValueError"), _loading("own", "1"):
        sys.stdout.write("noise")
        raise ValueError
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("window", [8, 9, 20, 1000])
def test_perplexity_is_that_of_plain_passes(model: nw.Model, window: int) -> None:
    ids = model.tokenizer(TEXT.strip())["input_ids"]
    half = window // 2
    total = 0.0
    for place in range(1, len(ids)):
        # the window that predicts this token begins half a window before its own half
        block = (place - 1) // half
        start = 0 if block < 2 else 1 + (block - 1) * half
        context = ids[:1] + ids[max(start, 1) : place]
        with torch.no_grad():
            logits = model.module(torch.tensor([context])).logits[0, -1]
        total -= float(logits.log_softmax(-1)[ids[place]])
    assert perplexity(model, TEXT.strip(), window) == pytest.approx(math.exp(total / (len(ids) - 1)), rel=1e-4)


def test_a_text_that_cannot_be_measured_is_named(model: nw.Model, tmp_path: Path) -> None:
    ids = [token for token in range(300) if model.tokenizer(model.tokenizer.decode([token]))["input_ids"] == [token]]
    if ids:
        with pytest.raises(DataError, match="single token"):
            perplexity(model, model.tokenizer.decode(ids[:1]))
    for name, content, word in (
        ("a.txt", b" \n", "is empty"),
        ("b.txt", b"\xff\xfe\x00", "UTF-8"),
        ("c", None, "read"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=word):
            evaluate(model, cases(), perplexity=tmp_path / name, out=tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_an_evaluation_measures_a_text_before_and_with_each_edit(model: nw.Model, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    given = {"perplexity": tmp_path / "text.txt", **QUICK, "rate": 0.1}
    found = evaluate(model, cases(), out=tmp_path / "out", **given)
    for case, row in zip(cases(), found.rows, strict=True):
        assert row["before"]["perplexity_text"] == perplexity(model, TEXT.strip())
        with nw.fine(model, case.fact, freeze_last=0, steps=2, rate=0.1).applied(model):
            assert row["figures"]["perplexity_text"] == perplexity(model, TEXT.strip())
    assert found.rows[0]["figures"]["perplexity_text"] != found.rows[0]["before"]["perplexity_text"]
    assert found.recipe["perplexity"]["file"] == "text.txt"
    assert described("perplexity_text") == ("Perplexity", "the given text")
    (tmp_path / "text.txt").write_text(TEXT + "x")
    with pytest.raises(nw.NeuronwiseError, match="perplexity"):
        evaluate(model, cases(), out=tmp_path / "out", **given)


def test_tasks_of_another_place_say_what_to_download() -> None:
    text = _why(
        "hellaswag", "0.4", ConnectionError("Couldn't reach 'Rowan/hellaswag' on the Hub (OfflineModeIsEnabled)")
    )
    assert "hf download Rowan/hellaswag --repo-type dataset" in text
    assert "no task 'x'" in _why("x", "0.4", KeyError("Spec 'x' is not a registered task/group/tag name"))
    assert _why("x", "0.4", FileNotFoundError("Unable to find '/a/b.json'.")).endswith("Unable to find '/a/b.json'.")
    assert described("task_my_own_acc") == ("my_own_acc", "lm-evaluation-harness")
    assert described("task_in_the_wild_acc_free") == ("in_the_wild_acc_free", "lm-evaluation-harness")
    assert ordered(["task_a_acc", "success_forced"]) == ["success_forced", "task_a_acc"]


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MethodError, match=r"neuronwise\[tasks\]"):
        Tasks(["anything"])


@pytest.fixture
def task(tmp_path: Path) -> Path:
    rows = [{"q": f"the {name} sits on the", "choices": ["mat", "blue", "France"], "answer": n % 3}
            for n, name in enumerate(("cat", "dog", "bear", "teddy"))]  # fmt: skip
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "own.yaml").write_text(
        f"task: own\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path}/own.jsonl\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\ndoc_to_choice: '{{choices}}'\n"
        "doc_to_target: '{{answer}}'\nmetric_list:\n  - metric: acc\n"
    )
    return tmp_path / "own.yaml"


def test_a_task_whose_examples_make_no_requests_is_one_sentence(
    model: nw.Model, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    task.write_text(task.read_text().replace("doc_to_choice: '{{choices}}'", "doc_to_choice: 3"))
    with pytest.raises(MethodError, match=r"^The task\w* .* cannot be "):
        Tasks([str(task)], limit=1).measure(model)


@pytest.mark.parametrize("row", ["null", " null", "\ufeffnull", 'null{"q": "the cat"}'])
def test_a_row_that_is_null_does_not_end_the_process(row: str, task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(task.parent / "hub"))
    data = task.with_suffix(".jsonl")
    data.write_text(f"{row}\n{data.read_text()}", encoding="utf-8")
    with pytest.raises(MethodError, match="a row of its data is null"):
        Tasks([str(task)])


def accuracy(model: nw.Model, task: Path) -> float:
    """The share of questions whose right choice is the likeliest, by plain passes."""
    right = []
    for row in map(json.loads, task.with_suffix(".jsonl").read_text().splitlines()):
        scores = []
        for choice in row["choices"]:
            head = model.tokenizer(row["q"])["input_ids"]
            ids = model.tokenizer(f"{row['q']} {choice}")["input_ids"]
            with torch.no_grad():
                said = model.module(torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(float(said[place - 1, ids[place]]) for place in range(len(head), len(ids))))
        right.append(scores.index(max(scores)) == row["answer"])
    return sum(right) / len(right)


def test_tasks_from_local_files_before_and_with_edits(
    model: nw.Model, task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    before, padding = weights(model), model.tokenizer.pad_token
    found = evaluate(model, cases(1), tasks=[str(task)], rate=0.3, **{**QUICK, "steps": 5})
    assert same(before, weights(model))
    assert model.tokenizer.pad_token == padding
    assert torch.is_grad_enabled()
    (row,) = found.rows
    assert row["before"]["task_own_acc"] == accuracy(model, task)
    with nw.fine(model, cases()[0].fact, freeze_last=0, steps=5, rate=0.3).applied(model):
        assert row["figures"]["task_own_acc"] == accuracy(model, task)
    assert found.recipe["tasks"] == ["own.yaml"]
    measured = Tasks([str(task)], limit=1)
    assert measured.measure(model) == measured.measure(model)
    with pytest.raises(MethodError, match="no file"):
        Tasks([str(tmp_path / "gone.yaml")])
    task.with_suffix(".jsonl").unlink()
    with pytest.raises(MethodError, match="cannot be loaded"):
        Tasks([str(task)])


def test_on_the_shell(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text("prompt,subject,target_new\nthe capital of {} is,cat,red\n")
    (tmp_path / "text.txt").write_text(TEXT)
    options = ["-m", tiny_folder, "--no-free", "--set", "steps=1", "--set", "freeze_last=0", "--others", "0"]
    asked = ("evaluate", tmp_path / "facts.csv", *options)
    done = shell(*asked, "--out", tmp_path / "out", "--perplexity", tmp_path / "text.txt", "--json")
    content = json.loads(done.stdout)
    assert content["before"]["perplexity_text"]["n"] == content["after"]["perplexity_text"]["n"] == 1
    assert "cannot be read" in shell(*asked, "--out", tmp_path / "no", "--perplexity", tmp_path / "x", expect=2).stderr
    assert not (tmp_path / "no").exists()
