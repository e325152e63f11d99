"""The built-in model from photo or fact to neurons, by the library and by the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import neuronwise as nw
from neuronwise.locate.methods import methods
from shell import shell

pytestmark = pytest.mark.builtin


@pytest.fixture(scope="module")
def cat(builtin: Any, chelsea: Path) -> nw.Run:
    return builtin.run(image=chelsea)


def test_the_cat_is_named(cat: nw.Run) -> None:
    assert "cat" in [concept.word for concept in cat.concepts]
    assert cat.text.endswith(".")
    assert cat.chat


def test_every_method_finds_neurons_that_are_heated_and_decoded(builtin: Any, cat: nw.Run) -> None:
    for method in set(methods("run")) - {
        "log_prob_increase",
        "integrated_gradients",
    }:  # minutes each, proved on tiny models
        found = nw.locate(builtin, cat, "cat", method=method, top=10)
        assert len(found) == 10
        heat = nw.heatmap(builtin, cat, found)
        assert heat.grid.shape == (8, 8)
        assert np.isfinite(heat.image()).all()
        assert all(len(nw.decode(builtin, member.neuron)) == 10 for member in found[:2])


def test_contributions_are_shares_of_the_logit(builtin: Any, cat: nw.Run) -> None:
    """All neurons' normalized scores are what the feed-forward blocks add to the real logit."""
    from neuronwise.locate.shares import direct_shares, share_total

    target = cat.target("cat")
    written = direct_shares(builtin, cat, [(target.position, {target.token_id: 1.0})])
    with torch.no_grad():
        logit = float(builtin.forward(cat.forced_inputs(), rows=[cat.row(target.position)])[0, 0, target.token_id])
    assert share_total(written, 0) == pytest.approx(logit, rel=1e-4)


def test_suppressing_the_word_s_neurons_takes_the_word_away(builtin: Any, cat: nw.Run, chelsea: Path) -> None:
    found = nw.locate(builtin, cat, "cat", contrast=10, normalize=True, top=50)
    control = nw.locate(builtin, cat, "cat", method="random_same_layers", among=found)
    target = cat.target("cat")
    inputs, row = cat.forced_inputs(), cat.row(target.position)

    def probability() -> float:
        with torch.no_grad():
            return float(builtin.forward(inputs, rows=[row])[0, 0].softmax(-1)[target.token_id])

    before = probability()
    with nw.suppress(builtin, found):
        without = probability()
    with nw.suppress(builtin, control):
        at_random = probability()
    assert without < 0.5 * before
    assert at_random > 2 * without
    assert probability() == before
    assert builtin.run(image=chelsea).text == cat.text


FACTS = [
    ("The capital of France is", " Paris"),
    ("The capital of Japan is", " Tokyo"),
    ("The opposite of hot is", " cold"),
    ("The chemical symbol for gold is", " Au"),
]


def test_facts_lose_their_answer_and_not_by_chance(builtin_text: Any) -> None:
    lost, by_chance = [], []
    for prompt, answer in FACTS:
        run = builtin_text.run(prompt=prompt, max_new_tokens=0, chat=False)
        found = nw.locate(builtin_text, run, target=answer, contrast=10, normalize=True, top=20)
        verified = nw.locate(builtin_text, run, target=answer, method="causal_effect", among=found)
        assert verified[0].score >= verified[len(verified) - 1].score
        control = nw.locate(builtin_text, run, target=answer, method="random_same_layers", among=found)
        token, inputs = run.target(target=answer).token_id, run.forced_inputs()
        shares = []
        for neurons in ((), found, control):
            with nw.suppress(builtin_text, neurons), torch.no_grad():
                shares.append(float(builtin_text.forward(inputs, rows=[-1])[0, 0].softmax(-1)[token]))
        lost.append(1 - shares[1] / shares[0])
        by_chance.append(1 - shares[2] / shares[0])
    assert np.mean(lost) > 0.6
    assert np.mean(lost) > np.mean(by_chance) + 0.4


@pytest.mark.parametrize("size", [(1, 1), (1000, 30), (40, 700)])
def test_a_photo_of_any_size(builtin: Any, chelsea: Path, size: tuple[int, int]) -> None:
    run = builtin.run(image=Image.open(chelsea).resize(size), max_new_tokens=4)
    found = nw.locate(builtin, run, target=" cat", top=5)
    assert nw.heatmap(builtin, run, found).image().shape == size[::-1]


def test_real_photos(builtin: Any, data: Path) -> None:
    photos = sorted((data / "coco-mini" / "val2017").glob("*.jpg"))[:4]
    for photo in photos:
        run = builtin.run(image=photo)
        assert run.text
        finding = nw.find(builtin, run, None if run.concepts else [run.text.split()[0]], top=5)
        for concept in finding.concepts:
            assert len(concept.neurons) == 5
            assert concept.heat is not None


def test_find_on_the_shell_writes_the_page(chelsea: Path, tmp_path: Path) -> None:
    done = shell("find", chelsea, "--concept", "cat", "--top", 12, "--out", tmp_path / "out", "--json")
    content = json.loads(done.stdout)
    assert [concept["word"] for concept in content["concepts"]] == ["cat"]
    assert content["concepts"][0]["position"] is not None
    start, end = content["concepts"][0]["occurrences"][0]
    assert content["text"][start:end] == "cat"
    page = (tmp_path / "out" / "index.html").read_text()
    assert "data:image" in page


def test_suppress_on_the_shell_shows_both_controls(chelsea: Path) -> None:
    arguments = ("suppress", chelsea, "--concept", "cat", "--normalize", "--contrast", 10, "--json")
    content = json.loads(shell(*arguments).stdout)
    assert list(content["texts"]) == ["before", "suppressed", "random", "random_same_layers"]
    assert "cat" in content["texts"]["before"]
    assert content["texts"]["suppressed"] != content["texts"]["before"]
    sizes = {name: len(neurons) for name, neurons in content["neurons"].items()}
    assert sizes == {"suppressed": 50, "random": 50, "random_same_layers": 50}
    layers = {name: sorted(n.split(".")[0] for n in neurons) for name, neurons in content["neurons"].items()}
    assert layers["suppressed"] == layers["random_same_layers"]
