"""Recipes for single questions about photos go through every step, from captions to the report, on the wired model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import neuronwise as nw
from neuronwise.report.study import write_report
from neuronwise.study.recipe_fields import Recipe
from neuronwise.study.recipe_file import make_recipe, read_recipe
from neuronwise.study.runner import resume, run_study
from wired_study import write_photos

TINY: dict[str, Any] = {"model": "wired", "prompt": "the", "max_new_tokens": 2, "data": {}}
SWAPS = {**TINY, "target": "cat", "photos": 1, "at_least": 1}
# Other sizes than shipped, and words that the wired model knows.
KEYS: dict[str, dict[str, Any]] = {
    "captions": {**SWAPS, "prompts": ["the red", "the {}"]},
    "captions-concepts": {**SWAPS, "photos": None, "most": 2, "found_on": 1, "without": 1},
    "default-neurons": {**TINY, "photos": 1, "at_least": 1, "without": 1},
    "heat": {**TINY, "maps": 2},
    "modalities": {"model": "wired", "limit": 1, "photos": {"prompt": "the {} on", "answers": ["animal", "red"]}},
    "swap-settings": SWAPS,
}


def smallest(name: str) -> Recipe:
    """The shipped recipe with few neurons, and with layers and steps that two layers allow."""
    keys = {**read_recipe(name).model_dump(exclude_defaults=True), **KEYS[name]}
    if "interventions" in keys:
        keys["interventions"] = [{**one, "K": [3]} for one in keys["interventions"]]
    if "editors" in keys:
        keys["editors"] = [{**one, "settings": {"freeze_last": 0, "steps": 2}} for one in keys["editors"]]
    return make_recipe(keys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_photos(tmp_path_factory.mktemp("photos"), plain=2))


@pytest.mark.parametrize("name", KEYS)
def test_a_shipped_recipe_runs_to_its_report(name: str, model: nw.Model, folder: str, tmp_path: Path) -> None:
    recipe = smallest(name).at(folder)
    found = run_study(model, recipe, recipe.load(), tmp_path / "study")
    assert found.finished
    # Random neurons of this model may have no slope at all, and the recipe's highest beta holds others.
    assert not [why for why in found.failed.values() if "holds these neurons where they are" not in why]
    assert found.rows
    page = write_report(tmp_path / "study").read_text()
    for table in (tmp_path / "study" / "report").rglob("*.csv"):
        assert table.read_text().count("\n") > 1, table.name
    assert recipe.title in page
    assert resume(tmp_path / "study", lambda _: model, folder).rows == found.rows
