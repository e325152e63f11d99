"""What examples/plugin adds, as one file and one line each and as an installed package, is known everywhere.

In Python, on the shell, on pages, in presets, in evaluations and studies, and by the contract tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import neuronwise
from families import tiny
from wired_study import RECIPE, talking, write_photos

pytestmark = pytest.mark.long

HERE, SOURCE = Path(__file__).parent, Path(neuronwise.__file__).parent
PLUGIN = HERE.parent / "examples" / "plugin"
POINTS: dict[str, dict[str, str]] = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
ROW = re.compile(r"^\| .* \| `\w+` in `(\S+)` \| `(neuronwise\.\w+)` \| \[(\w+\.py)\] \|$", re.MULTILINE)
GUIDE = ROW.findall((HERE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8"))  # table, group, example


def as_a_line(folder: Path) -> Path:
    """A copy of neuronwise, each thing a file beside its table and a line in the table."""
    copy = folder / "neuronwise"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    for file in SOURCE.rglob("*.safetensors"):
        (copy / file.relative_to(SOURCE)).symlink_to(file)
    for table, group, example in GUIDE:
        ((name, value),) = POINTS[group].items()
        beside = Path(table).parent
        shutil.copy(PLUGIN / "src" / "more_neurons" / example, copy / beside / example)
        module = ".".join(("neuronwise", *beside.parts, Path(example).stem))
        line = f'"{name}": "{module}:{value.partition(":")[2]}",'
        code = (copy / table).read_text()
        start, place = code.index(f'group="{group}"'), 0
        place = code.rindex("{", 0, start) + 1
        (copy / table).write_text(f"{code[:place]}\n        {line}{code[place:]}")
    return folder


def as_a_package(folder: Path) -> Path:
    """The example package, installed beside neuronwise by pip, without a network."""
    source = shutil.copytree(PLUGIN, folder.parent / "plugin")  # a build may leave files in it
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    alone = ("--no-index", "--no-deps", "--no-build-isolation", "--target", folder)
    subprocess.run([*pip, *alone, source], check=True)
    return folder


def test_every_table_has_an_example() -> None:
    groups = {
        found for file in SOURCE.rglob("*.py") for found in re.findall(r'^    group="(.+?)"', file.read_text(), re.M)
    }
    assert sorted(group for _, group, _ in GUIDE) == sorted(groups) == sorted(POINTS)
    for _, group, example in GUIDE:
        ((name, value),) = POINTS[group].items()
        assert value.startswith(f"more_neurons.{Path(example).stem}:")
        assert f"[{name}](src/more_neurons/{example})" in (PLUGIN / "README.md").read_text()


def python(path: Path, *arguments: object) -> str:
    """What Python writes with ``path`` before all else."""
    paths = os.pathsep.join(map(str, (path, SOURCE.parent)))
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=HERE.parent,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A model that talks of photos, photos, facts and a recipe."""
    folder = tmp_path_factory.mktemp("material")
    model = talking(tiny_tokenizer)
    model.module.save_pretrained(folder / "model")
    model.processor.save_pretrained(folder / "model")
    write_photos(folder / "photos")
    (folder / "photos" / "metadata.jsonl").unlink()
    lines = [f"{file.name} | a {file.stem[:3]} on the mat" for file in sorted((folder / "photos").glob("*.png"))]
    (folder / "photos" / "album.txt").write_text("\n".join(lines))
    facts = [{"ask": "the capital of {} is", "about": subject, "answer": "red", "again": f"{subject} is"}
             for subject in ("cat", "dog")]  # fmt: skip
    (folder / "facts.json").write_text(json.dumps(facts))
    recipe = {**RECIPE, "model": str(folder / "model"), "methods": ["loudest"], "concepts": ["dog"]}
    recipe |= {"metrics": ["shared-words"], "metric_models": {"words": str(folder / "list")}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "interventions": ["suppress", "halve"]}))
    (folder / "list").mkdir()
    (folder / "list" / "words.txt").write_text("dog")
    words: Any = tiny("llama")[0]
    words.save_pretrained(folder / "words")
    tiny_tokenizer.save_pretrained(folder / "words")
    length = {key: recipe[key] for key in ("model", "prompt", "max_new_tokens")}
    editors = ["nudge", {"editor": "nudge", "settings": {"step": 2.0}}]
    evaluation = {"kind": "evaluation", "model": recipe["model"], "editors": editors, "others": 0}
    (folder / "evaluation.yaml").write_text(yaml.safe_dump(evaluation))
    (folder / "length.yaml").write_text(yaml.safe_dump({**length, "kind": "length"}))
    return folder


@pytest.fixture(scope="module", params=[as_a_line, as_a_package], ids=["a line", "a package"])
def added(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path_factory.mktemp("added") / "src")


@pytest.fixture(scope="module")
def seen(added: Path, material: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("used")
    shutil.copytree(material, folder, dirs_exist_ok=True)
    python(added, HERE / "plugged.py", folder / "seen.json", folder)
    found = json.loads((folder / "seen.json").read_text())
    found["page"] = (folder / "page" / "index.html").read_text()
    return found


def test_help_lists_what_is_added(seen: dict[str, Any]) -> None:
    assert "loudest" in seen["help"]["find"]
    assert "nudge" in seen["help"]["edit fact"]
    assert {"nudge", "pairs"} <= set(re.findall(r"\w+", seen["help"]["evaluate"]))
    assert {"album", "blank"} <= set(re.findall(r"\w+", seen["help"]["find"]))
    assert {"album", "length", "timed"} <= set(re.findall(r"\w+", seen["help"]["study run"]))
    assert "center" in seen["help"]["evidence"]
    assert "prefixed" in seen["help"]["convert"]


def test_the_formula_s_test_passes(added: Path) -> None:
    file = PLUGIN / "tests" / "test_loudest.py"
    assert "1 passed" in python(added, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, file)


def test_a_method_locates(seen: dict[str, Any]) -> None:
    activations = dict(seen["activation"])
    assert dict(seen["loudest"]) == {name: abs(a) for name, a in activations.items()}
    rows = seen["find"]["concepts"][0]["neurons"]
    assert [row["score"] for row in rows] == [score for _, score in seen["loudest"][:5]]
    assert "how loud each neuron is where the model predicts" in seen["page"]
    (listed,) = seen["methods"]["methods"]
    assert listed["score"].startswith("how loud each neuron is")


def test_an_editor_edits_and_has_presets(seen: dict[str, Any]) -> None:
    assert "nudge" in [row["editor"] for row in seen["presets"]["editors"]]
    (preset,) = seen["preset"]["editors"]
    assert (preset["source"], preset["settings"]) == ("our choice", {"step": 1.0})
    assert (seen["edit"]["method"], seen["edit"]["settings"]) == ("nudge", {"step": 3})
    assert (seen["evaluate"]["cases"], seen["evaluate"]["failed"]) == (2, [])
    assert seen["evaluate"]["recipe"]["editor"] == "nudge"
    assert (seen["compared"]["finished"], seen["compared"]["rows"], seen["compared"]["failed"]) == (True, 4, {})


def test_forms_are_read(seen: dict[str, Any]) -> None:
    assert seen["facts"] == ["pairs", [["the capital of {} is", "cat", "red"], ["the capital of {} is", "dog", "red"]]]
    assert {"generality_forced", "generality_begins"} <= seen["evaluate"]["after"].keys()
    assert seen["inpainted"] == [255, 255, 255]
    assert seen["exported"] == [{"name": "1/5", "score": 0.0}]
    assert len(seen["photos"]) == 10


def test_a_study_takes_a_method(seen: dict[str, Any]) -> None:
    assert seen["study"]["finished"]
    assert {case["inputs"]["method"] for case in seen["cases"]} == {"loudest"}
    assert {case["status"] for case in seen["cases"]} == {"done"}


def test_a_kind_of_study_runs_and_reports(seen: dict[str, Any]) -> None:
    assert (seen["length"]["kind"], seen["length"]["finished"], seen["length"]["rows"]) == ("length", True, 10)
    assert "Words of a caption" in seen["length page"]


def test_a_metric_scores(seen: dict[str, Any]) -> None:
    assert seen["metric"] == {"shared-words": [0.75]}
    columns = {column for row in seen["cases"][0]["rows"] for column in row}
    assert "to_references.shared-words" in columns


def test_an_intervention_an_executor_and_a_metric_by_a_model_are_used_in_a_study(seen: dict[str, Any]) -> None:
    rows = [row for case in seen["cases"] for row in case["rows"] if case["inputs"]["intervention"] == "halve"]
    assert {case["inputs"]["intervention"] for case in seen["cases"]} == {"suppress", "halve"}
    assert {row["to_before.listed-words"] for row in rows} <= {0.0, 0.5, 1.0}
    assert "the study took" in seen["log"]


def test_evidence_nouns_and_models_have_names(seen: dict[str, Any]) -> None:
    grid = np.array(seen["center"])
    assert grid.max() == grid[1:-1, 1:-1].max() > grid[0, 0] == grid[-1, -1]
    assert seen["nouns"] == ["Paris"]
    assert "The model 'lab' is a folder that LAB_MODEL names" in seen["refused"]
    assert (seen["converted"]["converter"], seen["same"]) == ("prefixed", True)


def test_contract_tests_take_them_up(added: Path) -> None:
    files = ("edit/test_every_editor.py", "locate/test_every_method.py", "data/test_every_form.py")
    chosen = "(nudge and (gpt2 or mixtral)) or loudest or pairs or album"
    options = ("-o", "addopts=-v", "-p", "no:cacheprovider", "-k", chosen)
    told = python(added, "-m", "pytest", *options, *(f"tests/{file}" for file in files))
    passed = re.findall(r"\[(\S+)\] PASSED", told)
    assert {"nudge", "loudest", "pairs", "album"} <= {name for case in passed for name in case.split("-")}
