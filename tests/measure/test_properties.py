"""Properties of neurons: by hand on small sets, and on the model whose neurons are planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import neuronwise as nw
from families import tiny
from neuronwise.errors import ImageError, MethodError
from neuronwise.intervene import shuffle_image_tokens
from neuronwise.measure import properties as of
from neuronwise.neurons import Neuron, NeuronSet
from neuronwise.read.photo_map import PhotoMap
from wired import PLANTED, red_square, wired_llava

A, B, C, D, E = (Neuron(0, unit) for unit in range(5))
TRUE = NeuronSet.of([Neuron(1, unit) for unit in PLANTED])


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Any) -> nw.Model:
    return wired_llava(tiny_tokenizer)


@pytest.fixture(scope="module")
def run(model: nw.Model) -> nw.Run:
    found = model.run(red_square(7, 7)[0], "the", max_new_tokens=1)
    assert found.text == "dog"
    return found


def test_overlaps_by_hand() -> None:
    assert of.overlap([A, B, C, D], [D, A, E]) == 0.5
    assert of.common([[A, B, C], [B, C, D], [C, B, E]]) == pytest.approx(2 / 3)
    assert of.common([[A, B, C, D], [A]]) == 1.0
    assert of.pairwise([[A, B], [B, C], [A, B]]) == pytest.approx((0.5 + 1 + 0.5) / 3)
    for wrong in (lambda: of.overlap([], [A]), lambda: of.common([[A]]), lambda: of.pairwise([[A], []])):
        with pytest.raises(MethodError):
            wrong()


def test_specificity_by_hand() -> None:
    assert of.exclusive({"dog": [A, B], "cat": [B, C, D], "car": [E, A]}) == {
        "dog": 0.0,
        "cat": pytest.approx(2 / 3),
        "car": 0.5,
    }
    photos = {"dog": [[A, B], [A, C]], "cat": [[A, D], [D, E], [B, D], [D, E]], "car": [[E, B]]}
    chances = of.crucial_elsewhere(photos)
    assert chances["dog"] == {A: 0.125, B: (0.25 + 1) / 2, C: 0.0}
    assert chances["cat"] == {A: 0.5, B: 0.75, D: 0.0, E: 0.5}
    assert chances["car"] == {B: (0.5 + 0.25) / 2, E: 0.25}
    assert [of.specific(chances["dog"], kappa) for kappa in (0.1, 0.2, 0.7)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert of.specific(chances["car"], 0.25) == 0  # below, not at
    with pytest.raises(MethodError, match="two concepts"):
        of.exclusive({"dog": [A]})
    with pytest.raises(MethodError, match="no neurons"):
        of.specific({}, 0.1)


def test_decoded_tokens_are_one_text() -> None:
    decoded = [[" dog", "dog", "\n", "Dogs "], ["\ufffd", ""], [" cat", "the"]]
    assert list(map(of.token_text, decoded)) == ["dog Dogs", "", "cat the"]


def test_shuffling_the_image_leaves_the_planted_neurons(model: nw.Model, run: nw.Run) -> None:
    found = nw.locate(model, run, "dog", top=3)
    assert set(found.neurons) == set(TRUE.neurons)
    with shuffle_image_tokens(model, run, seed=3):
        again = model.run(run.image, run.prompt, max_new_tokens=1, chat=run.chat)
        after = nw.locate(model, again, "dog", top=3)
    assert of.overlap(found.neurons, after.neurons) == 1.0


def test_noise_on_the_planted_neurons_takes_the_word(model: nw.Model, run: nw.Run) -> None:
    target = run.target("dog")
    cells = [(sigma, 3) for sigma in (0.0, 2.0, 20.0)]
    random = NeuronSet.of([Neuron(1, unit) for unit in (0, 1, 2)])
    planted = [of.noise_effects(model, run, target, TRUE, cells, seed=seed) for seed in range(8)]
    elsewhere = [of.noise_effects(model, run, target, random, cells, seed=seed) for seed in range(8)]
    for effects in (*planted, *elsewhere):
        assert [(effect.sigma, effect.count) for effect in effects] == cells
        assert effects[0].drop == 0
        assert effects[0].first
    assert np.mean([effects[2].drop for effects in planted]) > 1
    assert any(not effects[2].first for effects in planted)
    assert all(effect.first and abs(effect.drop) < 0.01 for effects in elsewhere for effect in effects)


def test_noise_equals_a_change_of_the_weights(model: nw.Model, run: nw.Run) -> None:
    target = run.target("dog")
    found = of.noise_effects(model, run, target, TRUE, [(0.7, 2)], seed=4)[0]
    generator = torch.Generator().manual_seed(4)
    weight = model.module.model.language_model.layers[1].mlp.down_proj.weight
    kept = weight.detach().clone()
    read = [model.forward(run.prompted.inputs, rows=[-1])[0, -1].log_softmax(-1)[target.token_id]]
    try:
        with torch.no_grad():
            for neuron in TRUE.neurons[:2]:
                weight[:, neuron.unit] += 0.7 * torch.randn(model.hidden_size, generator=generator)
            read.append(model.forward(run.prompted.inputs, rows=[-1])[0, -1].log_softmax(-1)[target.token_id])
    finally:
        with torch.no_grad():
            weight.copy_(kept)
    assert found.drop == pytest.approx(float((read[0] - read[1]).detach()), abs=1e-4)
    every = torch.cat([block.value_vectors.flatten() for block in model.blocks])
    assert of.value_scale(model) == pytest.approx(float(every.std(correction=0)), rel=1e-4)


def test_the_unit_of_noise_counts_routed_experts() -> None:
    module, _ = tiny("mixtral")
    down = [p.detach() for name, p in module.named_parameters() if name.endswith("experts.down_proj")]
    every = torch.cat([one.flatten() for one in down])
    assert of.value_scale(nw.Model(module)) == pytest.approx(float(every.std(correction=0)), rel=1e-4)


def heat(grid: list[list[float]], size: int, box: tuple[float, float, float, float] | None = None) -> PhotoMap:
    values = np.array(grid, dtype=np.float32)
    return PhotoMap(values, box or (0, 0, size, size), Image.new("RGB", (size, size)))


def test_heat_against_an_object_by_hand() -> None:
    grid = np.zeros((20, 20))
    grid[:4, :5] = np.arange(1, 21).reshape(4, 5)
    one = heat(grid.tolist(), 20)
    mask = np.zeros((20, 20), bool)
    mask[2:4, :] = True  # holds the 10 hottest of the 20 above the 95th percentile
    fit = of.heat_fit(one, mask)
    assert fit.iou == pytest.approx(10 / 50)
    assert fit.pointing
    assert fit.object_share == pytest.approx(0.1)
    assert fit.chance == pytest.approx(0.05 * 0.1 / (0.05 + 0.1 - 0.005))
    assert of.heat_fit(one, ~mask & (np.arange(20) > 9)[None]).iou == 0


def test_chance_is_what_scattered_pixels_reach() -> None:
    generator = np.random.default_rng(0)
    mask = np.zeros((200, 200), bool)
    mask[20:120, 30:110] = True
    fit = of.heat_fit(heat(generator.random((200, 200)).tolist(), 200), mask)
    assert fit.iou == pytest.approx(fit.chance, abs=0.005)


def test_only_what_the_model_saw_counts() -> None:
    grid = [[float(row * 10 + column) for column in range(10)] for row in range(10)]
    seen = heat(grid, 20, (5, 0, 15, 20))  # the middle half
    mask = np.zeros((20, 20), bool)
    mask[:, :10] = True
    assert of.heat_fit(seen, mask).object_share == 0.5
    mask[:, 5:] = False
    with pytest.raises(ImageError, match="outside"):
        of.heat_fit(seen, mask)
    with pytest.raises(ImageError, match="mask is"):
        of.heat_fit(seen, mask[:10])
