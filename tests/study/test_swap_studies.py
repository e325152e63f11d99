"""Words swapped in captions, as a study: on single photos and on concepts, beside random neurons, and asked anew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import neuronwise as nw
from neuronwise.data.photos import Photos
from neuronwise.data.words import COCO_KINDS
from neuronwise.edit import swap
from neuronwise.neurons import Neuron, NeuronSet
from neuronwise.study.interventions import INTERVENTIONS, Intervention, Scene
from neuronwise.study.kind import Study
from neuronwise.study.kinds import KINDS
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.rows import where
from neuronwise.study.runner import resume, run_study
from neuronwise.study.suppression.changes import Nothing
from neuronwise.study.suppression.trials import target_of, trials
from neuronwise.study.workspace import Workspace
from wired import PLANTED
from wired_study import AFTER_DOG, RECIPE, talking

UNUSED = 27
SWAPS: dict[str, Any] = {
    **RECIPE, "target": "cat", "K": [3], "metrics": [], "without": 1, "photos": 2, "at_least": 1,
    "prompts": ["the red", "the {}"],
    "methods": ["contribution", "random_same_layers", "random"],
    "interventions": [{"intervention": "swap", "options": {"cap": 2.0}}, "suppress"],
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Any) -> nw.Model:
    """As ``talking``; a dimension of the stream that nothing else uses makes it say "cat", and then "mat"."""
    made = talking(tiny_tokenizer)
    cat = made.tokenizer.convert_tokens_to_ids("▁cat")
    with torch.no_grad():
        made.module.lm_head.weight[cat, UNUSED] = 20.0
        made.module.model.language_model.embed_tokens.weight[cat, AFTER_DOG] = 1.0
    return made


@pytest.fixture(scope="module")
def found(model: nw.Model, photos: Photos, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return run_study(model, make_recipe(SWAPS), photos, tmp_path_factory.mktemp("out") / "study")


def table(found: Study, name: str) -> dict[tuple[str, str], list[str]]:
    """The means of a table by intervention and method."""
    rows = next(one for one in KINDS["suppression"].tables(found) if one.name == name).rows
    return {(str(row[0]), str(row[1])): [str(cell).split(" ")[0] for cell in row[2:]] for row in rows}


SWAP = "swap cap=2.0"


def test_on_single_photos_the_target_comes_in_and_the_rest_stays(found: Study) -> None:
    rows = where(found.rows, intervention=SWAP, method="contribution", role="found_on")
    assert len({row["photo"] for row in rows}) == len(rows) == 2
    assert {(row["before"], row["after"], row["word"]) for row in rows} == {("dog mat", "cat mat", "dog")}
    assert table(found, "swapped-found_on")[SWAP, "contribution"] == [
        "3",
        *"1.00 1.00 1.00 1.00 1.00 1.00 0.00".split(),
        *"1.00 1.00 0.00".split(),
    ]
    swapped, gone, _, entered = table(found, "swapped-found_on")["suppress", "contribution"][1:5]
    assert (swapped, gone, entered) == ("0.00", "1.00", "0.00")
    assert table(found, "swapped-found_on")["suppress", "random"][1:3] == ["0.00", "0.00"]


def test_each_photo_has_neurons_of_its_own(found: Study) -> None:
    for name, split in found.notes["split"].items():
        assert [name] == [f"dog {photo}" for photo in split["found_on"]]
        assert (split["held_out"], len(split["without"])) == ([], 1)
        assert len(found.notes["found"][f"{name}/contribution"]["neurons"]) == 3


def test_the_same_photo_is_asked_in_other_ways(found: Study, model: nw.Model, photos: Photos) -> None:
    asked = where(found.rows, intervention=SWAP, method="contribution", role="asked")
    assert {row["prompt"] for row in asked} == {"the red", "the {}"}
    with_photo, alone = (next(row for row in asked if row["prompt"] == prompt) for prompt in ("the red", "the {}"))
    path = next(photo.path for photo in photos if photo.id == with_photo["photo"])
    assert with_photo["before"] == model.run(path, "the red", max_new_tokens=2).text
    assert alone["before"] == model.run(None, "the dog mat", max_new_tokens=2).text
    assert (with_photo["swapped"], alone["swapped"]) == (True, None)  # the text alone names no dog to begin with
    assert table(found, "swapped-asked")[SWAP, "contribution"] == ["3", "the", "1.00", "1.00", "1.00", "2"]


def test_the_outcome_is_that_of_the_edit(found: Study, model: nw.Model, photos: Photos) -> None:
    (name, outcome), *_ = found.notes["noted"].items()
    photo = found.notes["split"][name.partition("/")[0]]["found_on"][0]
    run = model.run(next(one.path for one in photos if one.id == photo), "the", max_new_tokens=2)
    edit = swap(model, run, "dog", "cat", neurons=NeuronSet.of(found_neurons(found, name)), cap=2.0)
    assert outcome == {key: edit.record.get(key) for key in ("norm", "steps", "success", "enough")}
    assert table(found, "swaps")[SWAP, "contribution"][1] == "1.00"


def found_neurons(found: Study, case: str) -> list[Neuron]:
    group, method, *_ = case.split("/")
    return [Neuron(*address) for address in found.notes["found"][f"{group}/{method}"]["neurons"]]


def test_random_neurons_that_never_fire_are_failures_with_the_reason(found: Study) -> None:
    assert {name.split("/")[1] for name in found.failed} == {"random", "random_same_layers"}
    assert all("their slope is 0" in reason for reason in found.failed.values())


def test_random_neurons_are_moved_as_far_as_those_that_they_stand_beside(model: nw.Model, photos: Photos) -> None:
    """With an intervention of another package; whichever case comes first."""
    seen: list[float | None] = []

    @contextlib.contextmanager
    def record(scene: Scene, settings: Nothing) -> Iterator[dict[str, Any]]:
        assert (scene.words, scene.target) == (["dog"], "cat")
        seen.append(scene.moved)
        yield {"norm": 0.25}

    INTERVENTIONS.add("record", Intervention("record", record, Nothing, swaps=True))
    try:
        methods = ["random", "contribution"]
        recipe = make_recipe({**SWAPS, "interventions": ["record"], "methods": methods, "photos": 1, "prompts": None})
        done = run_study(model, recipe, photos)
    finally:
        INTERVENTIONS.remove("record")
    assert not done.failed
    assert seen == [None, 0.25, None]  # asked what the located ones take, then the random ones, then the located ones


def test_one_step_takes_neurons_exactly_as_far_as_asked(model: nw.Model, photos: Photos) -> None:
    photo = next(one for one in photos if one.id == "dog0")
    run = model.run(photo.path, "the", max_new_tokens=2)
    scene = Scene(
        model, NeuronSet.of(Neuron(1, unit) for unit in PLANTED), [run], ["dog"], "cat", cast(Any, dict), moved=0.125
    )
    swapping = INTERVENTIONS["swap"]
    before = run.text
    with swapping.begin(scene, swapping.made({})) as noted:
        assert noted["norm"] == pytest.approx(0.125, rel=1e-5)
        assert noted["steps"] == 1
    assert model.run(photo.path, "the", max_new_tokens=2).text == before


def test_targets_are_drawn_where_the_recipe_names_none(model: nw.Model, photos: Photos) -> None:
    recipe: Any = make_recipe({**SWAPS, "target": None})
    space = Workspace(model, recipe, photos)
    for trial in trials(space).values():
        target = target_of(space, trial.group)
        assert target is not None
        assert COCO_KINDS[target] == "animal"  # of the same kind as dog
        assert target not in ("dog", "cat")  # cat is on no photo of dogs, but several tokens
    suppressing: Any = make_recipe({**SWAPS, "target": None, "interventions": ["suppress"]})
    plain = Workspace(model, suppressing, photos)
    assert {target_of(plain, trial.group) for trial in trials(plain).values()} == {None}


def test_a_swap_of_a_concept_is_tested_on_other_photos(model: nw.Model, photos: Photos) -> None:
    recipe = {
        **SWAPS,
        "photos": None,
        "prompts": None,
        "methods": ["contribution"],
        "interventions": SWAPS["interventions"][:1],
    }
    found = run_study(model, make_recipe(recipe), photos)
    assert {row["role"] for row in found.rows} == {"found_on", "held_out", "without"}
    assert all(row["after"] == "cat mat" for row in where(found.rows, role="held_out"))
    assert table(found, "swapped-held_out")[SWAP, "contribution"][1] == "1.00"
    assert KINDS["suppression"].figures(found)[0].note.startswith("Held-out photos (3)")


def test_without_swaps_there_are_no_such_columns_and_tables(model: nw.Model, photos: Photos) -> None:
    recipe = {**SWAPS, "target": None, "interventions": ["suppress"], "methods": ["contribution"]}
    found = run_study(model, make_recipe(recipe), photos)
    assert not {"target", "word", "entered", "swapped"} & set(found.rows[0])
    assert not [one.name for one in KINDS["suppression"].tables(found) if one.name.startswith("swap")]


def test_an_interrupted_one_gives_the_same_rows(found: Study, model: nw.Model, photos: Photos, tmp_path: Path) -> None:
    assert found.folder is not None
    for file in found.folder.iterdir():
        if file.suffix in (".json", ".jsonl"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    lines = (tmp_path / "cases.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cases.jsonl").write_bytes(b"".join(lines[:1]) + lines[1][:20])
    again = resume(tmp_path, lambda _: model)
    strip = lambda rows: [{k: v for k, v in row.items() if k != "seconds"} for row in rows]  # noqa: E731
    assert strip(again.rows) == strip(found.rows)
