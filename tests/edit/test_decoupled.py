"""Neurons of text and of photo apart: who is chosen, and who learns from what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from neuronwise.answers.modalities import asked
from neuronwise.answers.request import forced, requests
from neuronwise.data.facts import Fact
from neuronwise.edit import decoupled
from neuronwise.errors import MethodError
from neuronwise.locate import locate
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron
from speakers import PHOTO, given


@pytest.fixture
def model(tiny_tokenizer: Any) -> Model:
    return given("llava", tiny_tokenizer)[0]


@pytest.fixture
def fact(tmp_path: Path) -> Fact:
    PHOTO.save(tmp_path / "photo.png")
    return Fact("the {} sits on the", "cat", "red", image=str(tmp_path / "photo.png"))


def said(model: Model, fact: Fact) -> tuple[Any, int]:
    run = forced(model, fact)
    return run, int(model.forward(run.prompted.inputs, rows=[-1])[0, -1].argmax())


def test_neurons_of_each_modality_are_those_that_say_its_answer_and_not_the_others(model: Model, fact: Fact) -> None:
    edit = decoupled(model, fact, n=3, freeze_last=1, steps=1)
    groups = {way: list(map(Neuron.parse, edit.record[f"{way}_neurons"])) for way in ("text", "image")}
    loud: dict[str, list[Neuron]] = {}
    for way in groups:
        run, token = said(model, asked(fact, way))
        ranked = locate(model, run, target=token, position=0, top=model.num_neurons).neurons
        loud[way] = [neuron for neuron in ranked if neuron.layer < model.num_layers - 1]
    text = [neuron for neuron in loud["text"] if neuron not in loud["image"][:3]][:3]
    image = [neuron for neuron in loud["image"] if neuron not in {*loud["text"][:3], *text}][:3]
    assert groups == {"text": sorted(text), "image": sorted(image)}


def test_each_group_learns_from_its_own_way_of_asking(model: Model, fact: Fact) -> None:
    """The first step of Adam is the sign of the gradient: that of text and joint requests, or of photo and joint."""
    rate = 1e-3
    edit = decoupled(model, fact, n=2, freeze_last=1, steps=1, rate=rate, enough=0.0)
    changes: dict[str, torch.Tensor] = {}
    for delta in edit.deltas:
        for column, unit in enumerate(delta.units):  # type: ignore[arg-type]
            changes[str(Neuron(delta.layer, int(unit)))] = delta.left[:, column]
    for way in ("text", "image"):
        for address in edit.record[f"{way}_neurons"]:
            neuron = Neuron.parse(address)
            slope = gradient(model, asked(fact, way), neuron) + gradient(model, asked(fact, "joint"), neuron)
            assert torch.equal(changes[address].sign()[slope.abs() > 1e-7], -slope.sign()[slope.abs() > 1e-7])


def gradient(model: Model, fact: Fact, neuron: Neuron) -> torch.Tensor:
    """∂ loss / ∂ v of one request, in plain torch."""
    (decided,) = requests(model, fact)  # behind a template the model may decide the blank
    run = forced(model, decided)
    weight: Any = model.writer(neuron).module.weight
    weight.requires_grad_(True)
    try:
        logits = model.module(**run.prompted.inputs).logits[0, -1]
        (found,) = torch.autograd.grad(-logits.log_softmax(-1)[run.output_ids[0]], weight)
    finally:
        weight.requires_grad_(False)
    return found[:, neuron.unit]


def test_the_verdict_asks_in_all_three_ways_and_text_alone_in_one(model: Model, fact: Fact) -> None:
    edit = decoupled(model, fact, n=3, freeze_last=1, steps=3)
    assert len(edit.record["verdict"]["targets"]) == len(edit.record["losses"]) == 3
    alone = decoupled(model, Fact("the {} sits on the", "cat", "red"), n=3, freeze_last=1, steps=3)
    assert len(alone.record["verdict"]["targets"]) == 1
    assert alone.record["image_neurons"] == []
    with pytest.raises(MethodError, match="freeze_last"):
        decoupled(model, fact, freeze_last=9)
