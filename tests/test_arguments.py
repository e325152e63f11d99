"""What is handed to public functions: numbers of NumPy are numbers, anything else of another kind is one sentence."""

# pyright: reportArgumentType=false
# Wrong kinds are what is handed over here.

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import neuronwise as nw
from edits import random_edit
from neuronwise.errors import NeuronwiseError
from neuronwise.images import open_image
from neuronwise.intervene import mean_ablate, patch, perturb, scale


@pytest.fixture(scope="module")
def run(tiny_model: nw.Model) -> nw.Run:
    return tiny_model.run(prompt="the capital of France is", max_new_tokens=3)


def entered(context: Any) -> None:
    with context:
        pass


ARRAY: Any = np.zeros((3, 3))
Call = Callable[[nw.Model, nw.Run, Any], object]  # (model, run, what locate found) → whatever is called
WRONG: dict[str, tuple[Call, str]] = {
    "top": (lambda m, r, f: nw.locate(m, r, target=" Paris", top="5"), "top='5' does not fit; it takes a whole number"),
    "top of a fraction": (lambda m, r, f: nw.locate(m, r, target=" Paris", top=2.5), "top=2.5 does not fit"),
    "top that is true": (lambda m, r, f: nw.locate(m, r, target=" Paris", top=True), "top=True does not fit"),
    "more than any number": (
        lambda m, r, f: entered(scale(m, f, 10**400)),
        "factor=1000.* does not fit; it takes a num",
    ),
    "an array for a choice": (
        lambda m, r, f: nw.locate(m, r, target=" Paris", kind=ARRAY),
        "kind, a ndarray, does not fit; it takes 'neurons' or 'heads'",
    ),
    "position": (lambda m, r, f: nw.locate(m, r, target=" Paris", position="1"), "position='1' does not fit"),
    "target": (lambda m, r, f: nw.locate(m, r, target=2.5), "target=2.5 does not fit; it takes a text or a whole"),
    "concept": (lambda m, r, f: nw.locate(m, r, 3), "concept=3 does not fit"),
    "a model's name": (lambda m, r, f: nw.locate("builtin", r, target=" Paris"), "model='builtin' does not fit"),
    "a text for a run": (lambda m, r, f: nw.locate(m, "the", target=" Paris"), "run='the' does not fit"),
    "runs for a run": (lambda m, r, f: nw.scores(m, [r], target=" Paris"), "run, a list, does not fit; it takes a Run"),
    "a run of a circuit": (lambda m, r, f: nw.circuit(m, [r], target=" Paris"), "run, a list, does not fit"),
    "length": (lambda m, r, f: m.run(prompt="the", max_new_tokens="3"), "max_new_tokens='3' does not fit"),
    "texts for layers": (
        lambda m, r, f: nw.causal_trace(m, r, target=" Paris", subject="France", layers=[1.5]),
        "layers, a list, does not fit; it takes a list of whole numbers or none",
    ),
    "prompt": (lambda m, r, f: m.run(prompt=3), "prompt=3 does not fit; it takes a text or none"),
    "a position of activations": (lambda m, r, f: r.activations(99), "no position 99"),
    "a place that is none": (lambda m, r, f: r.activations("1"), "position='1' does not fit"),
    "a position of a concept": (lambda m, r, f: r.target("dog", position=1), "position is of a target"),
    "an occurrence of a target": (
        lambda m, r, f: r.target(target=" Paris", occurrence=1),
        "occurrence is of a concept",
    ),
    "positions to suppress": (lambda m, r, f: entered(nw.suppress(m, f, positions="a")), "positions='a' does not fit"),
    "a factor": (lambda m, r, f: entered(scale(m, f, "x")), "factor='x' does not fit; it takes a number"),
    "means": (lambda m, r, f: entered(mean_ablate(m, f, 3)), "means=3 does not fit"),
    "sigma": (lambda m, r, f: entered(perturb(m, f, None)), "sigma=None does not fit"),
    "a source": (lambda m, r, f: entered(patch(m, f, "the", [1])), "source='the' does not fit"),
    "a tensor for neurons": (lambda m, r, f: entered(nw.suppress(m, torch.tensor(1))), "not a neuron|does not fit"),
    "a number for labels": (lambda m, r, f: nw.probe(np.zeros((4, 2)), torch.tensor(1)), "labels, a Tensor, does not"),
    "a table for layers": (
        lambda m, r, f: nw.memit(m, nw.Fact("the {}", "cat", "dog"), layers=f.to_pandas()),
        "layers, a DataFrame, does not fit",
    ),
    "a text for texts": (lambda m, r, f: nw.Baseline.gather(m, texts="the cat"), "texts='the cat' does not fit"),
    "a word for a model": (lambda m, r, f: nw.Baseline.gather("builtin", "self"), "model='builtin' does not fit"),
    "a number for a folder": (lambda m, r, f: nw.Index.load(3), "folder=3 does not fit"),
    "a number for facts": (lambda m, r, f: nw.load_facts(3), "source=3 does not fit"),
    "a file that is none": (lambda m, r, f: f.save("a\0b"), "is not the path of a file or folder"),
    "neurons": (lambda m, r, f: entered(nw.suppress(m, 3)), "not.* neuron|does not fit"),
    "decoded": (lambda m, r, f: nw.decode(m, f[0], k="3"), "k='3' does not fit"),
    "a set decoded as one": (lambda m, r, f: nw.decode(m, f[:3]), "decode_all|one neuron|does not fit"),
    "a word found in letters": (lambda m, r, f: nw.find(m, r, 3), "concepts=3 does not fit"),
    "a heat of nothing": (lambda m, r, f: nw.heatmap(m, r, None), "neurons=None does not fit"),
    "a set and a number": (lambda m, r, f: f & 3, "3 is not a neuron"),
    "a name for a module": (lambda m, r, f: nw.Model("x"), "'x' is not a loaded model"),
    "no module": (lambda m, r, f: nw.Model(None), "None is not a loaded model"),
    "a layer of halves": (lambda m, r, f: nw.Neuron(1.5, 2), "layer=1.5 does not fit"),
    "a layer that is a float": (lambda m, r, f: nw.Neuron(1.0, 2.0), "layer=1.0 does not fit"),
    "a negative unit": (lambda m, r, f: nw.Neuron(1, -2), "count from 0"),
    "no neuron scored": (lambda m, r, f: nw.ScoredNeuron("L1.U2", 1.0), "not a neuron"),
    "a score in words": (lambda m, r, f: nw.ScoredNeuron(nw.Neuron(1, 2), "high"), "score='high' does not fit"),
    "options of a method": (lambda m, r, f: nw.locate(m, r, target=" Paris", normalize="yes"), "normalize='yes' does"),
    "settings of an editor": (
        lambda m, r, f: nw.fine(m, nw.Fact("the {}", "cat", "dog"), n="many"),
        "n='many' does not fit; it takes a whole number",
    ),
    "members of a set": (lambda m, r, f: nw.NeuronSet(None), "members of a set are ScoredNeurons, not None"),
    "neurons without scores": (lambda m, r, f: nw.NeuronSet(["L1.U3"]), "are ScoredNeurons, not 'L1.U3'"),
    "members of a set of heads": (lambda m, r, f: nw.HeadSet("L1.H0"), "are ScoredHeads, not 'L'"),
    "no address of a head": (lambda m, r, f: nw.Head.parse(None), "not an attention head's address"),
    "a scalar for heads": (lambda m, r, f: nw.suppress(m, nw.HeadSet(torch.tensor(1))), "are ScoredHeads"),
    "a list for a file": (lambda m, r, f: nw.import_neurons([]), "path, a list, does not fit"),
    "a name for a model": (lambda m, r, f: nw.export_neurons(f, "x", "nnsight", model="m"), "model='m' does not fit"),
    "a number for a label": (lambda m, r, f: nw.explain("index", top="3"), "top='3' does not fit"),
    "no photo to swap by": (lambda m, r, f: nw.swap(m, object(), "dog", "cat"), "runs or photos, not an object"),
    "no model to ask": (lambda m, r, f: random_edit(m).applied_to("m"), "not 'm'"),
    "no model to merge into": (lambda m, r, f: random_edit(m).merge(None, "x"), "not None"),
    "no model of an adapter": (lambda m, r, f: random_edit(m).to_peft("m", "x"), "not 'm'"),
    "no name of a repository": (lambda m, r, f: random_edit(m).push(3), "repo_id=3 does not fit"),
    "an int without tokenizer": (lambda m, r, f: plain(m, r).target(target=" Paris"), "has no tokenizer"),
}


def plain(model: nw.Model, run: nw.Run) -> nw.Run:
    """The run in a model without a tokenizer."""
    return nw.Run.of(nw.Model(model.module, check=False), run.prompted, run.output_ids)


@pytest.mark.parametrize("case", WRONG)
def test_an_argument_of_another_kind_is_one_sentence(case: str, tiny_model: nw.Model, run: nw.Run) -> None:
    call, words = WRONG[case]
    found = nw.locate(tiny_model, run, target=" Paris", position=0, top=5)
    with pytest.raises(NeuronwiseError, match=words) as told:
        call(tiny_model, run, found)
    assert "\n" not in str(told.value)


def test_numbers_of_numpy_and_torch_are_numbers(tiny_model: nw.Model, run: nw.Run, tmp_path: Path) -> None:
    expected = nw.locate(tiny_model, run, target=" Paris", position=1, top=5)
    for number in (np.int64, np.int32, np.array, torch.tensor):
        found = nw.locate(tiny_model, run, target=" Paris", position=number(1), top=number(5))
        found.save(tmp_path / "found.json")
        assert nw.NeuronSet.load(tmp_path / "found.json") == expected
    assert nw.Neuron(np.int64(1), np.int32(2)) == nw.Neuron(1, 2)
    assert type(nw.Neuron(np.int64(1), np.int32(2)).layer) is int
    assert plain(tiny_model, run).target(target=5).text == "token 5"


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    told = str(NeuronwiseError("There is no file 'a\nb\x1b[31m\u202ec'."))
    assert told == "There is no file 'a\\nb\\x1b[31m\\u202ec'."


def test_a_result_says_which_photo_it_is_of(tiny_model: nw.Model, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    run = tiny_model.run(prompt="the cat", max_new_tokens=0)
    assert nw.locate(tiny_model, run, target=" dog").record["file"] is None
    run.image = open_image(tmp_path / "cat.png")
    assert nw.locate(tiny_model, run, target=" dog").record["file"] == "cat.png"
    assert nw.find(tiny_model, run, targets=" dog", method="contribution", heat=False).to_dict()["file"] == "cat.png"


def test_top_bounds_refined_neurons_too(tiny_model: nw.Model) -> None:
    runs = [tiny_model.run(prompt=text, max_new_tokens=0, chat=False) for text in ("the cat is", "a cat is")]
    refined = nw.locate(tiny_model, runs, target=" dog", method="integrated_gradients")
    assert len(refined) > 1
    assert (
        nw.locate(tiny_model, runs, target=" dog", method="integrated_gradients", top=1).members == refined.members[:1]
    )
