"""The rows of a study are the same whoever measures its cases, and whoever is killed meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import neuronwise as nw
from neuronwise.data.photos import Photos, load_photos
from neuronwise.model.named import Named
from neuronwise.study.kind import Study
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.runner import run_study
from wired_study import RECIPE, talking, write_photos


def without_seconds(study: Study) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in study.rows]


@pytest.fixture(scope="module")
def checkpoint(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wired")
    model = talking(tiny_tokenizer)
    model.module.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return load_photos(write_photos(tmp_path_factory.mktemp("photos")))


@pytest.fixture(scope="module")
def serial(checkpoint: Path, photos: Photos) -> Study:
    return run_study(nw.load(checkpoint), make_recipe({**RECIPE, "model": str(checkpoint)}), photos)


def test_two_processes_give_the_serial_rows(checkpoint: Path, photos: Photos, serial: Study, tmp_path: Path) -> None:
    recipe = make_recipe({**RECIPE, "model": str(checkpoint)})
    found = run_study(Named(str(checkpoint)), recipe, photos, tmp_path / "out", executor="processes", workers=2)
    assert without_seconds(found) == without_seconds(serial)
    assert found.notes == serial.notes
