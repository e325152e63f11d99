"""Recipes: what ships can be read, and everything that is wrong is said at once, by its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from neuronwise.errors import StudyError
from neuronwise.study.entries import each
from neuronwise.study.kinds import KINDS, shipped
from neuronwise.study.recipe_file import changed, make_recipe, parse_recipe, read_recipe
from neuronwise.study.suppression.recipe import SuppressionRecipe


def test_every_kind_ships_a_recipe_and_all_are_valid() -> None:
    assert set(shipped()) >= set(KINDS)
    assert {read_recipe(name).kind for name in shipped()} == set(KINDS)


@pytest.mark.parametrize("name", shipped())
def test_a_recipe_written_out_with_its_defaults_is_the_same(name: str) -> None:
    recipe = read_recipe(name)
    assert make_recipe(recipe.model_dump(mode="json")) == recipe


def test_the_shipped_suppression_study() -> None:
    recipe = read_recipe("suppression")
    assert isinstance(recipe, SuppressionRecipe)
    called = [method.called for method in each(recipe.methods)]
    assert len(called) == len(set(called)) == 13 + 12
    assert "by hand difference=0.1 gradient=0.01" in called
    assert {method.method for method in recipe.methods} >= {
        "two_stage", "contribution", "gradient_activation", "integrated_gradients", "activation", "random",
        "random_same_layers",
    }  # fmt: skip


WRONG = """
kind: suppression
model: [a]
spam: 1
data: {folder: x, half: 2}
concepts: [dog, dog]
at_least: 0
inpainting: magic
seed: 1.5
held_out: 1.0
K: [0, ten, found]
interventions: [{scale: -1}, zap]
metrics: [bleu-9]
methods:
  - nothing
  - {method: contribution, options: {bar: 1}}
  - {method: two_stage, options: {vote: 3}}
"""


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(StudyError) as caught:
        parse_recipe(WRONG, "mine.yaml")
    message = str(caught.value)
    for words in (
        "'mine.yaml' has 16 problems",
        "model: input should be a valid string (it is ['a'])",
        "spam: there is no such key (the keys are kind, title, model",
        "data.half: there is no such key (the keys are folder, part, limit)",
        "concepts: the list names something twice",
        "at_least: input should be greater than or equal to 1 (it is 0)",
        "inpainting: there is no inpainting 'magic'; write one of telea, ns, lama:FILE.pt",
        "seed: input should be a valid integer (it is 1.5)",
        "held_out: input should be less than 1 (it is 1.0)",
        "K.0: input should be greater than or equal to 1",
        "K.1: input should be a valid integer",
        "interventions.0: factor is -1; it must be 0 or more",
        "interventions.1: there is no intervention 'zap'; the interventions are suppress, mean_ablate, scale, swap",
        "metrics: there is no metric 'bleu-9'",
        "methods.0.method: there is no method 'nothing'; there are contribution",
        "methods.1.options: contribution has no option bar; it takes activation, normalize, contrast",
        "methods.2.options: vote=3 is not a share",
    ):
        assert words in message


def interventions(*listed: Any) -> dict[str, Any]:
    return {"methods": ["random"], "interventions": list(listed)}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"methods": ["contribution"], "K": ["found"]}, 'K: K "found" needs a method that filters'),
        ({"methods": [{"method": "random", "K": ["found"]}]}, 'methods: K "found" needs a method that filters'),
        ({"methods": ["contribution", "contribution"]}, "methods: the list names something twice"),
        ({"methods": ["random_same_layers"]}, "name one more method"),
        (
            {"methods": [{"method": "random_same_layers", "like": "x"}, "random"]},
            "like='x' must name one of the methods",
        ),
        ({"methods": [{"method": "two_stage", "sweep": {"vote": [0.5, 2]}}]}, "methods.0.sweep: vote=2"),
        ({"methods": []}, "methods: the list is empty"),
        (
            {"methods": ["random"], "metric_models": {"blurt": "x"}},
            "metric_models: there is no key 'blurt'; the keys are",
        ),
        ({"methods": [{"method": "random", "K": []}]}, "methods.0.K: the list is empty"),
        (
            {"methods": ["random", {"method": "random", "optoins": {}}]},
            "methods.1.optoins: there is no such key (the keys are method, name, options, sweep, agree, like, K)",
        ),
        (interventions("suppress", {"intervention": "suppress", "K": [3]}), "the list names something twice"),
        (interventions({"intervention": "suppress", "K": ["found"]}), 'K "found" needs a method that filters'),
        (interventions({"intervention": "suppress", "methods": ["x"]}), "'x' names none of the methods (random)"),
        (interventions("scale"), "interventions.0: scale cannot take these settings"),
        (interventions({"intervention": "swap", "options": {"top": 3}}), "leave top out"),
        (interventions({"intervention": "swap", "sweep": {"step": [0.1, -1.0]}}), "step and cap must be above 0"),
        (interventions({"intervention": "swap", "options": {"stride": 3}}), "there is no setting 'stride'"),
    ],
)
def test_impossible_values(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError) as caught:
        make_recipe({"kind": "suppression", **keys})
    assert words in str(caught.value)
    assert "has 1 problem: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no keys"),
        ("- a", "holds no keys"),
        ("a: [", "is not YAML in line 1"),
        ("kind: x\nkind: y", "line 2: kind is given twice"),
        ("a: !!python/object:os.system x", "is not YAML"),
        ("K: [1]", "kind: it is missing; the kinds are suppression"),
        ("kind: [x]\nseed: a\nspam: 1", "has 2 problems: kind: there is no kind ['x']"),
    ],
)
def test_what_is_no_recipe(text: str, words: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse_recipe(text)
    assert words in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name in (tmp_path, tmp_path / "none.yaml", tmp_path / "binary.yaml"):
        with pytest.raises(StudyError, match="cannot be read"):
            read_recipe(name)


def test_interventions_are_written_as_short_as_they_can_be() -> None:
    swapping = {"intervention": "swap", "sweep": {"spare": [0.1, None]}, "K": [5]}
    recipe = make_recipe({"kind": "suppression", **interventions("suppress", {"scale": 0.5}, "swap", swapping)})
    assert isinstance(recipe, SuppressionRecipe)
    called = [one.called for one in each(recipe.interventions)]
    assert called == ["suppress", "scale 0.5", "swap", "swap spare=0.1", "swap spare=None"]
    written = recipe.model_dump(mode="json")["interventions"]
    assert written[:3] == ["suppress", {"scale": 0.5}, "swap"]
    assert make_recipe(recipe.model_dump(mode="json")) == recipe


def test_single_keys_are_changed_and_checked() -> None:
    recipe = make_recipe({"kind": "suppression", "methods": [{"method": "two_stage", "sweep": {"vote": [0.5]}}]})
    other = changed(recipe, {"model": "mine", "dtype": None})
    assert (other.model, other.dtype) == ("mine", None)
    assert changed(other, {"model": "builtin"}) == recipe
    probe = read_recipe("probe").model_dump()
    assert probe["transfer"] is not None
    assert changed(read_recipe("probe"), {"transfer": None}).model_dump() == {**probe, "transfer": None}
    assert make_recipe(recipe.model_dump(mode="json")) == recipe
    with pytest.raises(StudyError, match="dtype"):
        changed(recipe, {"dtype": "int8"})
