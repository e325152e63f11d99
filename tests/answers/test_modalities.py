"""One fact asked by photo and text, by text alone and by the photo alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from neuronwise.answers.modalities import MODALITIES, asked
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit import fine
from neuronwise.errors import MethodError, PromptError
from speakers import PHOTO, speaker


@pytest.fixture
def photo(tmp_path: Path) -> str:
    PHOTO.save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


def test_the_subject_is_told_by_the_photo_alone(photo: str) -> None:
    fact = Fact("A {} is a kind of", "cat", "bird", "animal", photo)
    joint, text, image = (asked(fact, modality) for modality in MODALITIES)
    assert joint == fact
    assert (text.text, text.image) == ("A cat is a kind of", None)
    assert (image.text, image.image) == ("The object in the photo is a kind of", photo)
    assert {f.target_new for f in (joint, text, image)} == {"bird"}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{} runs on", "the object in the photo runs on"),
        ("the color of the {} is", "the color of the object in the photo is"),
        ("a cat is in", "the object in the photo is in"),
        ("In an {} you sit", "In the object in the photo you sit"),
    ],
)
def test_articles_and_capitals(prompt: str, expected: str, photo: str) -> None:
    assert asked(Fact(prompt, "cat", "bird", image=photo), "image").text == expected


def test_what_the_model_reads(photo: str, tiny_tokenizer: Any) -> None:
    """The same target is forced behind three inputs: only two hold the photo, only two hold the subject."""
    model = speaker("llava", tiny_tokenizer)
    fact = Fact("the {} sits on", "cat", "mat", image=photo)
    runs = {modality: forced(model, asked(fact, modality, unnamed="the animal")) for modality in MODALITIES}
    assert len({tuple(run.output_ids) for run in runs.values()}) == 1
    assert {m: "pixel_values" in run.forced_inputs() for m, run in runs.items()} == {
        "joint": True, "text": False, "image": True,
    }  # fmt: skip
    cat = model.tokenizer.convert_tokens_to_ids("▁cat")
    assert {m: cat in run.prompted.input_ids for m, run in runs.items()} == {
        "joint": True, "text": True, "image": False,
    }  # fmt: skip


@pytest.mark.parametrize("modality", MODALITIES)
def test_an_editor_takes_each(modality: str, photo: str, tiny_tokenizer: Any) -> None:
    model = speaker("llava", tiny_tokenizer)
    fact = asked(Fact("the {} sits on", "cat", "mat", image=photo), modality, unnamed="the animal")

    def probability() -> float:
        request = forced(model, fact)
        with torch.no_grad():
            logits = model.forward(request.forced_inputs(), rows=[request.row(0)])[0, 0].softmax(-1)
        return float(logits[request.output_ids[0]])

    before = probability()
    edit = fine(model, fact, freeze_last=0, steps=15, rate=0.05)
    assert probability() == before
    with edit.applied(model):
        assert probability() > before


def test_what_cannot_be_asked(photo: str) -> None:
    fact = Fact("the {} sits on", "cat", "mat")
    with pytest.raises(PromptError, match="no photo"):
        asked(fact, "image")
    with pytest.raises(MethodError, match="joint, text, image"):
        asked(fact, "sound")
    pictured = Fact("the {} sits on", "cat", "mat", image=photo)
    assert [asked(pictured, modality).image is None for modality in MODALITIES] == [False, True, False]
