"""Facts about annotated photos, edited as they are put by photo and text, by text alone or by the photo alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import neuronwise as nw
from neuronwise.answers.modalities import asked
from neuronwise.data.photos import Captioned, Photos
from neuronwise.data.photos.photo import SeenObject
from neuronwise.errors import NeuronwiseError, StudyError
from neuronwise.measure import measure_edit
from neuronwise.study.evaluation.photo_facts import PhotoFacts
from neuronwise.study.evaluation.results import evaluations
from neuronwise.study.kinds import KINDS
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.runner import resume, run_study
from wired_study import write_photos

QUICK = {"freeze_last": 0, "steps": 2}
RECIPE: dict[str, Any] = {
    "kind": "evaluation", "model": "wired", "photos": {"prompt": "the {} on", "answers": ["animal", "red"]},
    "limit": 2, "others": 0,
    "editors": [
        {"editor": "fine", "name": f"by {way}", "settings": QUICK, "asked": way} for way in ("joint", "text", "image")
    ],
}  # fmt: skip


def photo(name: str, captions: tuple[str, ...], *categories: str) -> Captioned:
    return Captioned(name, Path(f"{name}.png"), captions, tuple(SeenObject(one, None) for one in categories))


def test_a_fact_is_about_an_object_that_is_annotated_and_named() -> None:
    photos = Photos((
        photo("a", ("a puppy and a man",), "dog", "person", "car"),
        photo("b", ("a man",), "person", "dog"),
        photo("c", ("a bus",), "bus"),
        photo("d", ("a cat and a bus",), "bus", "cat"),
    ), source="folder")  # fmt: skip
    named = PhotoFacts(prompt="The {} is a kind of", answers=["animal", "fruit"])
    found = {case.id: case.fact for case in named.cases(photos, 0)}
    assert {name: (fact.subject, fact.target_new) for name, fact in found.items() if name != "d"} == {
        "a": ("dog", "fruit"),  # a dog is an animal already
        "c": ("bus", "fruit"),
    }
    assert {fact.image for fact in found.values()} == {"a.png", "c.png", "d.png"}
    drawn = {next(iter(named.cases(Photos(photos.photos[3:]), seed))).fact.subject for seed in range(20)}
    assert drawn == {"bus", "cat"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def test_an_edit_is_made_as_it_is_asked_and_measured_in_every_way(
    model: nw.Model, folder: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(RECIPE).at(str(folder))
    facts = recipe.load()
    assert {case.fact.text for case in facts} == {"the dog on", "the cat on"}
    study = run_study(model, recipe, facts, tmp_path / "out")
    assert not study.failed
    for name, evaluation in evaluations(study).items():
        for case, row in zip(facts.cases[:2], evaluation.rows, strict=True):
            edit = nw.fine(model, asked(case.fact, name.removeprefix("by ")), **QUICK)  # pyright: ignore[reportArgumentType]
            assert row["figures"] == measure_edit(model, case, edit)
            assert {"success_forced", "success_text_free", "success_image_forced"} <= set(row["figures"])
    table = KINDS["evaluation"].tables(study)[0]
    assert {"asked by text, forced", "asked by photo, free"} <= set(table.columns)
    (tmp_path / "out" / "cases.parquet").unlink()
    assert resume(tmp_path / "out", lambda _: model).rows == study.rows


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(NeuronwiseError, match="Name a folder of annotated photos"):
        make_recipe(RECIPE).load()
    with pytest.raises(StudyError, match="shows an annotated object"):
        PhotoFacts(prompt="{}", answers=["x"]).of(Photos((), source="here"), 0)
    for change, words in (
        ({"photos": {"prompt": "what", "answers": ["x"]}}, r"photos.prompt: it needs one \{\}"),
        ({"photos": {"prompt": "{}", "answers": []}}, "photos.answers: the list is empty"),
        ({"editors": [{"editor": "fine", "asked": "sound"}]}, "editors.0.asked"),
    ):
        with pytest.raises(StudyError, match=words):
            make_recipe({**RECIPE, **change})
