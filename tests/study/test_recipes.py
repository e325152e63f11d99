"""Recipes that come with the package can be read, and with one key changed as `--set` does."""

from __future__ import annotations

import pytest

from neuronwise.study.kinds import shipped
from neuronwise.study.recipe_file import changed, read_recipe


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_may_have_any_key_changed(name: str) -> None:
    recipe = read_recipe(name)
    assert changed(recipe, {"title": "Another", "seed": 7}) == recipe.model_copy(update={"title": "Another", "seed": 7})
