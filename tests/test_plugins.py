"""The examples of CONTRIBUTING.md, each added as one file and one line and by another package, are known everywhere.

In Python, on the shell, on pages, in presets, in evaluations and studies, and by the contract tests.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import neuronwise
from wired_study import RECIPE, talking, write_photos

HERE, SOURCE = Path(__file__).parent, Path(neuronwise.__file__).parent
GUIDE = (HERE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n# (in )?src/neuronwise/(\S+)\n(.*?)```", GUIDE, re.DOTALL)
FILES = {path: code for within, path, code in BLOCKS if not within}
LINES = {path: line for within, path, line in BLOCKS if within}
TESTS = re.findall(r"```python\n# tests/(\S+)\n(.*?)```", GUIDE, re.DOTALL)
GROUPS = dict(re.findall(r"`(\S+)` \| `(neuronwise\.\w+)` \|", GUIDE))


def as_a_line(folder: Path) -> Path:
    """A copy of neuronwise, each thing a file in its room and a line in the table."""
    copy = folder / "neuronwise"
    big = ("*.safetensors", "__pycache__")
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns(*big))
    for file in SOURCE.rglob("*.safetensors"):
        (copy / file.relative_to(SOURCE)).symlink_to(file)
    for path, code in FILES.items():
        (copy / path).write_text(code)
    for path, line in LINES.items():
        text, added = re.subn(r'(Registry\(\s*"[^"]+",\s*\{)', rf"\g<1>\n{line}", (copy / path).read_text(), count=1)
        assert added == 1, f"{path} has no table"
        (copy / path).write_text(text)
    return folder


def as_a_package(folder: Path) -> Path:
    """An installed package beside neuronwise, which names its things in entry points."""
    about = folder / "more_neurons-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: more-neurons\nVersion: 1.0\n")
    for path, code in FILES.items():
        (folder / Path(path).name).write_text(code)
    points = []
    for path, line in LINES.items():
        name, module, value = re.fullmatch(r'\s*"(\S+)": "neuronwise\.\S*?(\w+):(\w+)",\s*', line).groups()  # type: ignore[union-attr]
        points.append(f"[{GROUPS[path]}]\n{name} = {module}:{value}\n")
    (about / "entry_points.txt").write_text("\n".join(points))
    return folder


def test_the_guide_adds_seven_things() -> None:
    assert len(FILES) == len(LINES) == 7
    assert set(LINES) <= set(GROUPS)


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
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "metrics": ["shared-words"]}))
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
    assert {"album", "length"} <= set(re.findall(r"\w+", seen["help"]["study run"]))


def test_the_formula_s_test_passes(added: Path, tmp_path: Path) -> None:
    ((name, code),) = TESTS
    file = tmp_path / Path(name).name
    file.write_text(code)
    paths = f"pythonpath={HERE}"
    assert "1 passed" in python(added, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "-o", paths, file)


def test_a_method_locates(seen: dict[str, Any]) -> None:
    activations = dict(seen["activation"])
    assert dict(seen["loudest"]) == {name: abs(a) for name, a in activations.items()}
    rows = seen["find"]["concepts"][0]["neurons"]
    assert [row["score"] for row in rows] == [score for _, score in seen["loudest"][:5]]
    assert "how loud each neuron is where the model predicts" in seen["page"]


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
    assert "generality_forced" in seen["evaluate"]["after"]
    assert seen["inpainted"] == [255, 255, 255]
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


def test_contract_tests_take_them_up(added: Path) -> None:
    files = ("edit/test_every_editor.py", "locate/test_every_method.py", "data/test_every_form.py")
    chosen = "(nudge and (gpt2 or mixtral)) or loudest or pairs or album"
    options = ("-o", "addopts=-v", "-p", "no:cacheprovider", "-k", chosen)
    told = python(added, "-m", "pytest", *options, *(f"tests/{file}" for file in files))
    passed = re.findall(r"\[(\S+)\] PASSED", told)
    assert {"nudge", "loudest", "pairs", "album"} <= {name for case in passed for name in case.split("-")}
