"""The study of probes, on the wired model that says "dog mat" of red squares, half of which are annotated as cats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import neuronwise as nw
from neuronwise.drawing.tables import Estimate
from neuronwise.errors import NeuronwiseError, StudyError
from neuronwise.report.study import write_report
from neuronwise.study.kind import Study
from neuronwise.study.kinds import KINDS
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.runner import run_study
from wired import red_square
from wired_study import talking

RECIPE: dict[str, Any] = {
    "kind": "probe", "model": "wired", "prompt": "the", "max_new_tokens": 2, "photos": 20, "questions": 1, "folds": 2,
    "shuffles": 2, "strengths": [0.1, 1.0], "methods": ["activation", "contribution"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen red squares; of the bright ones the annotation agrees, so that the pixels tell the label."""
    folder = tmp_path_factory.mktemp("probe")
    rows = []
    for number in range(16):
        true = number % 2 == 0
        image = red_square(number % 7, number // 2, seed=number)[0]
        pixels = np.asarray(image).copy()
        if not true:
            pixels[:4, :, 2] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append({"id": str(number), "file_name": f"{number}.png", "captions": ["a thing on the mat"],
                     "objects": [{"category": "dog" if true else "cat", "segmentation": None}]})  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Any) -> nw.Model:
    return talking(tiny_tokenizer)


@pytest.fixture(scope="module")
def study(model: nw.Model, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    recipe = make_recipe(RECIPE).at(str(folder))
    return run_study(model, recipe, recipe.load(), tmp_path_factory.mktemp("runs") / "probe")


def rows(study: Study, **values: Any) -> list[Any]:
    return [row for row in study.rows if all(row[key] == value for key, value in values.items())]


def test_labels_are_what_nothing_supports_and_what_is_there(study: Study) -> None:
    assert study.finished
    assert not study.failed
    (held,) = rows(study, asked="nouns", features="activation", part="held out")
    assert held["labels"] == [int(photo) % 2 == 1 for photo in held["photos"]]
    assert sorted(map(int, held["photos"])) == list(range(16))
    (shuffled,) = rows(study, asked="nouns", features="activation", part="shuffled labels")
    assert len(shuffled["labels"]) == 32
    assert sum(shuffled["labels"]) == 16
    (asked,) = rows(study, asked="pope", features="activation", part="held out")
    assert asked["labels"] == [kind == "present" for kind in asked["kinds"]]
    assert {kind: asked["kinds"].count(kind) for kind in set(asked["kinds"])} == {
        "present": 16, "random": 16, "popular": 16, "adversarial": 16,
    }  # fmt: skip


def test_controls_are_what_the_model_says(study: Study, model: nw.Model, folder: Path) -> None:
    (control,) = rows(study, asked="nouns", features="log p of the noun", part="held out")
    assert len(control["labels"]) == 16
    (own,) = rows(study, asked="pope", features="yes over no", part="the model's answer")
    shown = "dog" if int(own["photos"][0]) % 2 == 0 else "cat"  # the first question of a photo is about what it shows
    run = model.run(
        image=folder / f"{own['photos'][0]}.png", prompt=f"Is there a {shown} in the image?", max_new_tokens=0
    )
    with torch.no_grad():
        logits = model.forward(run.forced_inputs(), rows=[-1])[0, 0].float()

    def best(answer: str) -> float:
        words = (answer, answer.lower(), f" {answer}", f" {answer.lower()}")
        return max(float(logits[model.tokenizer(w, add_special_tokens=False)["input_ids"][0]]) for w in words)

    assert own["probabilities"][0] == pytest.approx(1 / (1 + np.exp(best("No") - best("Yes"))), abs=1e-5)


def test_tables_say_accuracy_and_auroc_beside_the_controls(study: Study) -> None:
    tables = {table.name: table for table in KINDS["probe"].tables(study)}
    listed = {(row[0], row[1]): row for row in tables["probe-nouns"].rows}
    (held,) = rows(study, asked="nouns", features="activation", part="held out")
    cell = listed["activation", "held out"][2]
    assert isinstance(cell, Estimate)
    right = [(p > 0.5) == label for p, label in zip(held["probabilities"], held["labels"], strict=True)]
    assert cell.mean == pytest.approx(np.mean(right))
    area = listed["activation", "held out"][3]
    assert isinstance(area, Estimate)
    assert area.mean == pytest.approx(roc_auc_score(held["labels"], held["probabilities"]))
    kinds = tables["probe-pope-kinds"].rows
    assert {row[1] for row in kinds} == {"random", "popular", "adversarial"}
    assert all(row[-2:] == [32, 16] for row in kinds)
    assert any(name.startswith("probe-nouns-") for name in tables) == bool(held["neurons"])
    assert study.folder is not None
    write_report(study.folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"methods": ["two_stage"]}, "gives no features"),
        ({"methods": ["activation_difference"]}, "gives no features"),
        ({"transfer": "train2017"}, "another one here"),
        ({"folds": 1}, "greater than or equal to 2"),
        ({"asked": ["verbs"]}, "nouns"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        make_recipe({**RECIPE, **change})


def test_photos_without_annotations_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"id": "a", "file_name": "a.png", "captions": ["a dog"]}))
    with pytest.raises(NeuronwiseError, match="has annotated objects"):
        make_recipe(RECIPE).at(str(tmp_path)).load()
