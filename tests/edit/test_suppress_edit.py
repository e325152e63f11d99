"""Suppression as an edit of captions: which columns it takes, what it says of itself, and its name beside the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from edits import same, weights
from neuronwise.answers.naming import names
from neuronwise.edit import load_edit, suppress, suppress_neurons
from neuronwise.errors import MethodError, TargetError
from neuronwise.locate import locate
from speakers import PHOTO, SPEAKERS, given


def test_the_editor_and_the_intervention_keep_their_names() -> None:
    assert nw.suppress is not suppress
    assert nw.suppress.__module__ == "neuronwise.intervene"


@pytest.mark.parametrize("name", SPEAKERS)
def test_it_is_the_intervention_made_lasting(name: str, tiny_tokenizer: Any) -> None:
    model, run, word = given(name, tiny_tokenizer)
    before = weights(model)
    edit = suppress(model, run, word, top=9, options={})
    assert same(before, weights(model))
    found = locate(model, run, word, top=9)
    assert edit.record["neurons"] == [str(neuron) for neuron in found.neurons]
    with nw.suppress(model, found):
        expected = model.forward(run.forced_inputs())
        text = run.again()
    with edit.applied(model):
        assert torch.allclose(model.forward(run.forced_inputs()), expected, atol=1e-4)
    assert edit.record["texts"] == [text]
    assert edit.record["texts_before"] == [run.text]
    assert edit.record["success"] is not names(text, word)
    assert same(before, weights(model))


@pytest.mark.parametrize("name", SPEAKERS)
def test_in_half_precision_it_comes_out_to_the_bit(name: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    model, run, word = given(name, tiny_tokenizer, torch.bfloat16)
    before = weights(model)
    edit = suppress(model, run, word, top=5, generate=False)
    edit.save(tmp_path / "edit")
    edit = load_edit(tmp_path / "edit")
    with edit.applied(model):
        for address in edit.record["neurons"]:
            neuron = nw.Neuron.parse(address)
            assert not model.blocks[neuron.layer].value_vector(neuron).any()
    assert same(before, weights(model))


def test_along_the_word_alone(tiny_tokenizer: Any) -> None:
    model, run, word = given("gpt2", tiny_tokenizer)
    unit = model.unembedding[run.target(word).token_id].detach()
    unit = unit / unit.norm()
    edit = suppress(model, run, word, top=3, along="word", generate=False)
    neurons = [nw.Neuron.parse(address) for address in edit.record["neurons"]]
    vectors = [model.blocks[n.layer].value_vector(n).detach().clone() for n in neurons]
    with edit.applied(model):
        for neuron, vector in zip(neurons, vectors, strict=True):
            left = model.blocks[neuron.layer].value_vector(neuron).detach()
            assert torch.allclose(left, vector - (vector @ unit) * unit, atol=1e-5)
            assert left.abs().max() > 1e-3


def test_several_photos_and_neurons_of_ones_own(tiny_tokenizer: Any) -> None:
    model, run, word = given("llava", tiny_tokenizer)
    found = locate(model, [run, run], word, top=6, contrast=10, normalize=True)
    edit = suppress(model, [run, run], word, top=6)
    assert edit.record["neurons"] == [str(neuron) for neuron in found.neurons]
    assert edit.record["request"]["photos"] == 2
    given_by_hand = suppress(model, run, word, neurons=found[:2], generate=False)
    both = suppress_neurons(model, found[:2])
    for one, other in zip(given_by_hand.deltas, both.deltas, strict=True):
        assert one.units is not None
        assert other.units is not None
        assert torch.equal(one.units, other.units)


def test_neurons_of_ones_own_get_a_verdict_on_all_else(tiny_tokenizer: Any) -> None:
    model = given("llama", tiny_tokenizer)[0]
    with pytest.warns(UserWarning, match="hurts the model"):
        edit = suppress_neurons(model, nw.NeuronSet.of([n for writer in model.writers for n in writer.neurons]))
    verdict = edit.record["verdict"]
    assert (verdict["targets"], verdict["holds"], verdict["hurts"], len(verdict["openings"])) == ([], True, True, 10)
    with edit.applied(model):
        changed = [
            row["after"] for row in suppress_neurons(model, nw.NeuronSet.of(["L0.U0"])).record["verdict"]["openings"]
        ]
    assert [row["after"] for row in verdict["openings"]] == changed  # what is zero already changes nothing more


def test_what_is_not_there_is_said(tiny_tokenizer: Any) -> None:
    model, run, word = given("llava", tiny_tokenizer)
    with pytest.raises(TargetError, match="nouns are: France, cat"):
        suppress(model, run, "mouse")
    with pytest.raises(MethodError, match="along="):
        suppress(model, run, word, along="all")
    with pytest.raises(MethodError, match="top must be 1"):
        suppress(model, PHOTO, word, top=0)
