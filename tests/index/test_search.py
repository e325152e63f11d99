"""Neurons found in an index: by the items that fire them, against scikit-learn and NumPy, and by what they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from test_index import TEXTS

import neuronwise as nw
from neuronwise.errors import IndexingError, NeuronError, NeuronwiseError
from neuronwise.index import Index
from neuronwise.index.search import areas, correlations, rank_weights
from neuronwise.model import Model
from wired import DECOYS, PLANTED, red_square, wired_llava


@pytest.fixture
def wired(tiny_tokenizer: Any, tmp_path: Path) -> tuple[Model, Index]:
    """A model that says "dog" of red, and an index of five photos with red and five without."""
    model, rows = wired_llava(tiny_tokenizer, noise=0), []
    for number in range(10):
        photo = red_square(7 * (number % 2), 7, size=6 + 3 * (number % 5), seed=number)[0]
        if number >= 5:
            photo = Image.fromarray(np.asarray(photo)[..., ::-1].copy())  # blue squares
        photo.save(tmp_path / f"{number}.png")
        rows.append(json.dumps({"file_name": f"{number}.png", "caption": " a dog" if number < 5 else " the mat"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    index = Index.build(model, tmp_path, out=tmp_path / "index", captions="given")
    assert index is not None
    return model, index


def test_what_fires_on_a_word_is_found_by_its_photos(wired: tuple[Model, Index]) -> None:
    _, index = wired
    assert ["dog" in item.text for item in index.items] == [True] * 5 + [False] * 5
    found = index.locate("dog", place="predicting", top=len(PLANTED) + len(DECOYS))
    assert {(n.layer, n.unit) for n in found.neurons} == {(1, unit) for unit in (*PLANTED, *DECOYS)}
    assert all(member.score == 1.0 for member in found)
    assert found.record["named"] == 5
    assert found.record["items"] == 10


def test_what_writes_a_word_is_found_by_its_value_vectors(wired: tuple[Model, Index]) -> None:
    model, index = wired
    found = index.locate("dog", by="writes", model=model, top=3)
    assert {(n.layer, n.unit) for n in found.neurons} <= {(1, unit) for unit in range(48)}
    from neuronwise.read.decode import decode

    for neuron in found.neurons:
        assert "dog" in decode(model, neuron, 1)[0]
    lowest = index.locate("dog", by="writes", model=model, top=3, lowest=True)
    assert [member.score for member in lowest] == sorted((member.score for member in lowest), reverse=True)
    assert not set(lowest.neurons) & set(found.neurons)


def test_cosines_are_those_of_the_weights(make: Any, tmp_path: Path) -> None:
    for family in ("llama", "mixtral"):
        model = make(family)
        index = Index.build(model, texts=TEXTS, out=tmp_path / family)
        assert index is not None
        one = model.writers[-1].neuron(7)
        found = index.similar(one, by="writes", model=model, top=model.num_neurons)
        assert len(found) == model.num_neurons - 1
        for member in found[:5]:
            own, other = (model.blocks[n.layer].value_vector(n) for n in (one, member.neuron))
            assert member.score == pytest.approx(float(torch.cosine_similarity(own, other, dim=0)), abs=1e-5)
        assert one not in found


def test_alike_are_those_that_share_their_items(wired: tuple[Model, Index]) -> None:
    _, index = wired
    found = index.similar(f"L1.U{PLANTED[0]}", place="predicting", top=4)
    assert {n.unit for n in found.neurons} == {*PLANTED[1:], *DECOYS}
    assert all(member.score > 0.9 for member in found)


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_a_run_stands_beside_its_own_entry_in_the_index(family: str, make: Any, tmp_path: Path) -> None:
    model = make(family)
    index = Index.build(model, texts=TEXTS, out=tmp_path / "index")
    assert index is not None
    found = index.firing_in(model.run(prompt=TEXTS[1], max_new_tokens=0, chat=False), top=model.num_neurons)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    checked = 0
    for member in found:
        entry = index[member]
        if entry.count:
            highest = next((one.value for one in entry.top(len(TEXTS)) if one.item.number == 1), None)
            usual = (
                np.mean(index.array(member.neuron.layer, "value")[index_row(index, member.neuron)][0, 0]) - entry.mean
            )
            if highest is not None and usual > 0:
                assert member.score == pytest.approx((highest - entry.mean) / usual, rel=1e-3, abs=1e-4)
                checked += 1
    assert checked > 20
    with pytest.raises(IndexingError, match="not of llama" if family == "mixtral" else "not of mixtral"):
        index.firing_in(make("mixtral" if family == "llama" else "llama").run(prompt="the cat", max_new_tokens=0))


def index_row(index: Index, neuron: nw.Neuron) -> int:
    return list(index.neurons(neuron.layer)).index(neuron)


def test_a_red_photo_fires_what_fires_with_red(wired: tuple[Model, Index]) -> None:
    model, index = wired
    run = model.run(red_square(7, 7, size=12, seed=99)[0], text=" a dog")
    found = index.firing_in(run, "predicting", top=5)
    assert {(n.layer, n.unit) for n in found.neurons} == {(1, unit) for unit in (*PLANTED, *DECOYS)}
    assert index.firing_in(run).record["place"] == "image"
    with pytest.raises(IndexingError, match="no image positions"):
        index.firing_in(model.run(prompt="the cat", max_new_tokens=0, chat=False), "image")


@pytest.mark.parametrize("items", [7, 40])
def test_areas_and_correlations_are_those_of_libraries(items: int) -> None:
    draw, k, neurons = np.random.default_rng(0), 6, 12
    named = draw.random(items) < 0.4
    value = np.round(draw.normal(size=(neurons, items)), 1)
    value[0] = 0
    order = np.argsort(-value, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(value, order, 1)
    known = kept != kept[:, -1:]
    hidden = np.full((neurons, items), -100.0)  # what the index still knows of the order
    for row in range(neurons):
        hidden[row, order[row][known[row]]] = k - np.flatnonzero(known[row])
    expected = [roc_auc_score(named, row) for row in hidden]
    assert areas(order, known, named) == pytest.approx(expected)
    assert areas(order, known, named)[0] == 0.5
    ranks = np.where(hidden == -100, 0, hidden)
    weights = rank_weights(known)
    got = correlations(order, weights, ranks[3])
    for row in range(neurons):
        right = 0 if ranks[row].std() == 0 else np.corrcoef(ranks[row], ranks[3])[0, 1]
        assert got[row] == pytest.approx(right, abs=1e-9)


def test_bad_questions_get_a_sentence(wired: tuple[Model, Index], make: Any) -> None:
    _, index = wired
    cases: list[tuple[Any, type[NeuronwiseError], str]] = [
        (lambda: index.locate("cat"), IndexingError, "No photo or text of this index names 'cat'"),
        (lambda: index.locate("dog", by="writes"), IndexingError, "give model="),
        (lambda: index.locate("dog", by="smell"), IndexingError, "choose fires or writes"),
        (lambda: index.locate("dog", by="writes", model=make("llama")), IndexingError, "not of llama"),
        (lambda: index.locate("dog", place="nowhere"), IndexingError, "this index has predicting, image, text"),
        (lambda: index.locate("dog", top=0), IndexingError, "ask for 1 neuron or more"),
        (lambda: index.similar("L7.U1"), NeuronError, "There is no neuron L7.U1"),
        (lambda: index.similar("dog"), NeuronError, "is not a neuron's address"),
        (lambda: index.array(0, "nothing"), IndexingError, "There is no array"),
        (lambda: index["L1.U3"].top(0), IndexingError, "ask for 1 example or more"),
    ]
    for call, error, said in cases:
        with pytest.raises(error, match=said):
            call()
