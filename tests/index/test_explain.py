"""Labels of neurons whose meaning is known because they were wired: right, told from others, and kept."""

from __future__ import annotations

import json
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import neuronwise as nw
from neuronwise.errors import IndexingError, NeuronError, NeuronwiseError
from neuronwise.index import Index
from neuronwise.index.cases import cases_of
from neuronwise.index.explainer import detect, fits
from neuronwise.index.labels import Labels
from neuronwise.model import Model
from wired import PLANTED, red_square, wired_llava
from wired_words import FIRST, WORDS, texts, wired_words

NEURONS = [f"L0.U{unit}" for unit in range(len(WORDS))]


@pytest.fixture
def words(tiny_tokenizer: Any) -> Model:
    return wired_words(tiny_tokenizer)


@pytest.fixture
def index(words: Model, tmp_path: Path) -> Index:
    index = Index.build(words, texts=texts(), out=tmp_path / "index")
    assert index is not None
    return index


def test_labels_are_right_and_told_from_those_of_other_neurons(index: Index, words: Model) -> None:
    labels = nw.explain(index, NEURONS, explainer=words)
    assert [labels[neuron].text for neuron in NEURONS] == list(WORDS)
    for label in labels.values():
        assert label.detection.auc.mean == label.detection.auc.low == 1.0
        assert label.detection.accuracy.mean == 1.0
        assert label.control is not None
        assert label.control.text == WORDS[int(label.control.neuron.partition("U")[2])] != label.text
    controls = [label.control.detection for label in labels.values() if label.control]
    assert np.mean([one.auc.mean for one in controls]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([one.accuracy.mean for one in controls]) == pytest.approx(0.5, abs=0.1)


def test_a_wrong_label_tells_nothing(index: Index, words: Model) -> None:
    """Of the words of the other slot each comes as often with a word as without it."""
    cases = cases_of(index, list(index.items.kinds()), index["L0.U1"].neuron, "predicting", False, 0)
    assert detect(words, "dog", cases).auc.mean == 1.0
    every = [detect(words, word, cases).auc.mean for word in WORDS if word not in FIRST]
    assert np.mean(every) == pytest.approx(0.5, abs=0.1)
    assert detect(words, "cat", cases).auc.mean < 0.5


def test_detection_is_that_of_a_library(index: Index, words: Model) -> None:
    cases = cases_of(index, list(index.items.kinds()), index["L0.U1"].neuron, "predicting", False, 0)
    for label in ("house", "cat dog", "mat"):
        found = detect(words, label, cases)
        held = [one.text for one in (*cases.held, *cases.held_others)]
        shown = [fits(words, label, [one.text for one in some]).mean() for some in (cases.shown, cases.shown_others)]
        truth = np.arange(len(held)) < len(cases.held)
        values = fits(words, label, held)
        assert found.auc.mean == pytest.approx(roc_auc_score(truth, values))
        assert found.accuracy.mean == pytest.approx(balanced_accuracy_score(truth, values > np.mean(shown)))
        assert found.auc.low <= found.auc.mean <= found.auc.high
        assert (found.firing, found.others) == (len(cases.held), len(cases.held_others))


def test_what_is_shown_is_not_held_out(index: Index) -> None:
    cases = cases_of(index, list(index.items.kinds()), index["L0.U1"].neuron, "predicting", False, 0)
    groups = [cases.shown, cases.shown_others, cases.held, cases.held_others]
    listed = [one.text for group in groups for one in group]
    assert len(set(listed)) == len(listed)
    assert all("dog" in one.text for one in (*cases.shown, *cases.held))
    assert all("<< dog >>" in one.marked for one in cases.shown)
    assert not any("dog" in one.text for one in (*cases.shown_others, *cases.held_others))


def test_photos_are_told_by_their_captions(tiny_tokenizer: Any, words: Model, tmp_path: Path) -> None:
    rows = []
    for number in range(24):
        photo = red_square(7 * (number % 2), 7, size=6 + number % 7, seed=number)[0]
        if number % 2:
            photo = Image.fromarray(np.asarray(photo)[..., ::-1].copy())  # blue squares
        photo.save(tmp_path / f"{number}.png")
        form = (" the {} is on the {}", " a {} of the {}", " blue {} in {}")[number // 8]
        animal, place = "cat" if number % 2 else "dog", ("mat", "house", "Paris", "teddy")[number // 2 % 4]
        rows.append(json.dumps({"file_name": f"{number}.png", "caption": form.format(animal, place)}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    model = wired_llava(tiny_tokenizer, noise=0)
    index = Index.build(model, tmp_path, ["the house is blue"] * 3, out=tmp_path / "index", captions="given")
    assert index is not None
    neuron = f"L1.U{PLANTED[0]}"
    label = nw.explain(index, neuron, explainer=words, model=model, place="predicting")[neuron]
    assert (label.text, label.detection.auc.mean, label.place) == ("dog", 1.0, "predicting")
    assert "dog" in label.raises[0]
    assert index.selective("predicting", top=5).neurons[0].layer == 1
    with pytest.raises(NeuronError, match=r"L1.U0 has no label: L1.U0 fires on 0 different texts"):
        nw.explain(index, "L1.U0", explainer=words, place="predicting")["L1.U0"]


def test_labels_stay_beside_the_index_and_are_not_written_twice(
    index: Index, words: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(index.labels) == 0
    first = nw.explain(index, NEURONS[:3], explainer=words)
    kept = (index.folder / "labels.json").read_text()
    schema = json.loads(resources.files("neuronwise.index").joinpath("labels.schema.json").read_text())
    jsonschema.validate(json.loads(kept), schema)
    asked: list[object] = []
    monkeypatch.setattr(sys.modules["neuronwise.index.explain"], "write", lambda *given: asked.append(given) or "mat")
    assert dict(nw.explain(index, NEURONS[:3], explainer=words)) == dict(first)
    assert (index.folder / "labels.json").read_text() == kept
    assert not asked
    again = nw.explain(index, NEURONS[2:5], explainer=words, seed=1)
    assert [label.text for label in again.values()] == ["mat"] * 3
    assert [label.text for label in index.labels.values()] == [*WORDS[:2], *["mat"] * 3]
    found = index.labels.search("MA")
    assert {str(label.neuron) for label in found} == {"L0.U2", "L0.U3", "L0.U4"}
    worth = [label.detection.auc.mean for label in found]
    assert worth == sorted(worth, reverse=True)
    assert index.labels.search("cat")[0] == first["L0.U0"]
    assert index.labels.search(" ") == []


@pytest.mark.parametrize("figure", ["auc", "accuracy"])
def test_a_label_whose_figures_are_no_numbers_is_damaged(index: Index, words: Model, figure: str) -> None:
    nw.explain(index, "L0.U1", explainer=words)
    file = index.folder / "labels.json"
    content = json.loads(file.read_text())
    content["labels"][0]["detection"][figure]["mean"] = "high"
    file.write_text(json.dumps(content))
    with pytest.raises(IndexingError, match="labels"):
        Labels.read(index.folder, index.model)


def test_an_interrupted_one_resumes(index: Index, words: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nw.explain(index, NEURONS, explainer=words, progress=stop)
    assert list(map(str, index.labels)) == NEURONS[:2]
    told: list[tuple[int, int]] = []
    whole = nw.explain(index, NEURONS, explainer=words, progress=lambda *both: told.append(both))
    assert told[-1] == (len(NEURONS), len(NEURONS))
    (index.folder / "labels.json").unlink()
    assert dict(nw.explain(index, NEURONS, explainer=words)) == dict(whole)


def test_the_neurons_that_stand_out_are_explained_by_default(index: Index, words: Model) -> None:
    found = index.selective(top=len(WORDS))
    assert {str(one) for one in found.neurons} == set(NEURONS)
    entry = index[found[0]]
    examples = np.mean([one.value for one in entry.top(len(texts()) // 2)])
    assert found[0].score == pytest.approx((examples - entry.mean) / entry.std)
    assert list(nw.explain(index, top=2, explainer=words)) == list(found.neurons[:2])


def test_bad_questions_get_a_sentence(index: Index, words: Model, make: Any, tmp_path: Path) -> None:
    cases: list[tuple[Any, type[NeuronwiseError], str]] = [
        (lambda: nw.explain(tmp_path / "none", explainer=words), IndexingError, "There is no index in"),
        (lambda: nw.explain(index, "L4.U1", explainer=words), NeuronError, "There is no neuron L4.U1"),
        (lambda: nw.explain(index, "dog", explainer=words), NeuronError, "is not a neuron's address"),
        (lambda: nw.explain(index, "L0.U1", top=3, explainer=words), IndexingError, "not both"),
        (lambda: nw.explain(index, top=0, explainer=words), IndexingError, "ask for 1 neuron or more"),
        (lambda: nw.explain(index, explainer=words, place="image"), IndexingError, "this index has predicting"),
        (lambda: nw.explain(index, explainer=words, model=make("llama")), IndexingError, "not of llama"),
        (lambda: nw.explain(index, explainer=str(tmp_path / "none")), NeuronwiseError, "none"),
        (lambda: index.labels["L0.U1"], NeuronError, "see neuronwise explain"),
    ]
    for call, error, said in cases:
        with pytest.raises(error, match=said):
            call()
    assert not (index.folder / "labels.json").exists()
    other = '{"schema": "neuronwise.labels/1", "model": "other", "labels": [], "left_out": {}}'
    later = other.replace("other", index.model).replace("/1", "/2")
    for damaged in ('{"schema": "neuronwise.labels/1"}', "[]", other, later):
        (index.folder / "labels.json").write_text(damaged)
        with pytest.raises(IndexingError, match="labels"):
            Labels.read(index.folder, index.model)
