"""One concept over many photos, and one photo with a mask: from Python and from the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import neuronwise as nw
from neuronwise.data.photos import Photos, load_photos
from neuronwise.errors import MethodError, StudyError
from neuronwise.study.concept import find
from schema_guard import validated
from shell import shell
from wired import PLANTED
from wired_study import PLACES, write_photos

EXACTLY = {(1, unit) for unit in PLANTED}
ASKED: dict[str, Any] = {"prompt": "the", "max_new_tokens": 2, "dilation": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: nw.Model) -> Path:
    folder = tmp_path_factory.mktemp("concept")
    model.module.save_pretrained(folder / "model")
    model.processor.save_pretrained(folder / "model")
    write_photos(folder / "photos")
    return folder


@pytest.fixture(scope="module")
def photos(folder: Path) -> Photos:
    return load_photos(folder / "photos")


def units(found: nw.NeuronSet) -> set[tuple[int, int]]:
    return {(neuron.layer, neuron.unit) for neuron in found.neurons}


@pytest.mark.parametrize(
    ("method", "options"),
    [("two_stage", {}), ("two_stage", {"difference": "null", "gradient": "null"}), ("contribution", {})],
)
def test_the_planted_neurons_by_every_way(model: nw.Model, photos: Photos, method: str, options: Any) -> None:
    found = find(model, photos, "dog", method=method, options=options, top=3, **ASKED)
    assert units(found.neurons) == EXACTLY
    assert len(found.photos) == len(PLACES)
    assert (found.neurons.record["method"], found.neurons.record["target"]) == (method, "dog")
    few = find(model, photos, "dog", method=method, options=options, top=3, most=2, **ASKED)
    assert len(few.photos) == 2
    assert "more than 2 photos" in few.left_out.values()


def test_what_cannot_be_found_is_said(model: nw.Model, photos: Photos) -> None:
    with pytest.raises(StudyError, match="cat: no caption names it"):
        find(model, photos, "cat", **ASKED)
    with pytest.raises(StudyError, match="zebra"):
        find(model, photos, "zebra", **ASKED)
    with pytest.raises(MethodError, match="no option best; it takes difference"):
        find(model, photos, "dog", options={"best": 1}, **ASKED)
    with pytest.raises(MethodError, match="no method 'causal_effect'"):
        find(model, photos, "dog", method="causal_effect", **ASKED)
    bare = Photos(tuple(type(p)(p.id, p.path) for p in photos), (), "bare")
    with pytest.raises(MethodError, match=r"none of the 6 .* has a mask"):
        find(model, bare, "dog", **ASKED)


OPTIONS = ("--prompt", "the", "--max-new-tokens", "2", "--dilation", "0")


def test_many_photos_on_the_shell(folder: Path, tmp_path: Path) -> None:
    done = shell("find", "--data", folder / "photos", "--concept", "dog", "-m", folder / "model", *OPTIONS,
                 "--photos", "3", "--out", tmp_path / "out", "--json")  # fmt: skip
    content = validated(json.loads(done.stdout))
    assert (content["schema"], content["method"], content["text"]) == ("neuronwise.find/2", "two_stage", None)
    assert {(row["layer"], row["unit"]) for row in content["concepts"][0]["neurons"]} == EXACTLY
    assert len(content["concepts"][0]["neurons"][0]["tokens"]) == 10
    assert content["funnel"]["after_vote"] == 3
    assert [photo["text"] for photo in content["photos"]] == ["dog mat"] * 3
    assert json.loads((tmp_path / "out/finding.json").read_text())["concepts"] == content["concepts"]
    assert ".photo.png" in (tmp_path / "out/index.html").read_text()
    first = content["photos"][0]["id"]
    photo, mask, without = (
        np.asarray(Image.open(tmp_path / f"out/{first}.{name}.png")) for name in ("photo", "mask", "inpainted")
    )
    assert (photo[mask > 0] == (255, 0, 0)).all()
    assert not (without[mask > 0] == (255, 0, 0)).all(-1).any()
    assert (without[mask == 0] == photo[mask == 0]).all()


def test_one_photo_with_a_mask_or_a_box(folder: Path, tmp_path: Path) -> None:
    left, top = PLACES[1]
    drawn = np.zeros((28, 28), np.uint8)
    drawn[top : top + 14, left : left + 14] = 255
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    for where in (("--mask", tmp_path / "mask.png"), ("--box", f"{left},{top},14,14")):
        done = shell("find", folder / "photos/dog1.png", "--concept", "dog", "-m", folder / "model", *OPTIONS, *where,
                     "--json")  # fmt: skip
        assert {(r["layer"], r["unit"]) for r in json.loads(done.stdout)["concepts"][0]["neurons"]} == EXACTLY


def test_what_is_wrong_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    photo = folder / "photos/dog1.png"
    for arguments, words in (
        (("--data", folder / "photos"), "--concept WORD"),
        (("--data", tmp_path / "none", "--concept", "dog"), "no folder"),
        ((photo, "--data", folder / "photos", "--concept", "dog"), "omit the photo"),
        ((photo, "--method", "two_stage", "--concept", "dog"), "--mask FILE"),
        ((photo, "--box", "1,2", "--concept", "dog"), "X,Y,WIDTH,HEIGHT"),
        ((photo, "--box", "100,100,5,5", "--concept", "dog"), "outside the photo"),
        ((photo, "--set", "vote=1"), "no option vote"),
        (("--method", "two_stage", "--concept", "dog"), "name a folder with --data"),
    ):
        assert words in shell("find", *arguments, expect=2).stderr


def test_several_photos_one_by_one_and_together(folder: Path, tmp_path: Path) -> None:
    photos = [folder / f"photos/dog{number}.png" for number in (0, 1)]
    asked = ("--prompt", "the", "--max-new-tokens", "2", "-m", folder / "model", "--top", 4, "--json")
    content = json.loads(shell("find", *photos, "--concept", "dog", *asked, "--out", tmp_path / "out").stdout)
    validated(content)
    model = nw.load(folder / "model")
    runs = [model.run(photo, "the", max_new_tokens=2) for photo in photos]
    options: dict[str, Any] = {"contrast": 10, "normalize": True, "baseline": "self", "focus": 3.5}
    found = nw.locate(model, runs, "dog", top=4, **options)
    rows = content["concepts"][0]["neurons"]
    assert content["concepts"][0]["photos"] == ["dog0", "dog1"]
    assert [nw.ScoredNeuron.from_row(row).neuron for row in rows] == list(found.neurons)
    assert [row["score"] for row in rows] == pytest.approx([member.score for member in found], rel=1e-4)
    for run, row in zip(runs, content["photos"], strict=True):
        alone = nw.locate(model, run, "dog", top=4, **options)
        neurons = [nw.ScoredNeuron.from_row(one).neuron for one in row["concepts"][0]["neurons"]]
        assert (row["text"], neurons) == (run.text, list(alone.neurons))
        own = json.loads((tmp_path / "out" / row["id"] / "finding.json").read_text())
        assert own["concepts"] == row["concepts"]
    page = (tmp_path / "out/index.html").read_text()
    assert 'href="dog0/index.html"' in page
    assert (tmp_path / "out/dog1/index.html").is_file()
    # Without a word: every noun of each caption, together those that two captions share.
    nouns = json.loads(shell("find", *photos, *asked).stdout)
    assert {row["word"] for row in nouns["concepts"]} == {c.word.lower() for c in runs[0].concepts}
    assert "No caption names" in shell("find", *photos, "--concept", "zebra", *asked, expect=2).stderr


def test_a_folder_of_photos_by_the_default_method(folder: Path) -> None:
    asked = ("--prompt", "the", "--max-new-tokens", "2", "-m", folder / "model", "--top", 4, "--json")
    done = shell("find", "--data", folder / "photos", "--concept", "dog", "--photos", 2, *asked)
    content = validated(json.loads(done.stdout))
    assert (content["method"], content["options"]["baseline"]) == ("contribution", "self")
    assert len(content["photos"]) == len(content["concepts"][0]["photos"]) == 2
    assert "dog: found on 2 photos" in done.stderr
