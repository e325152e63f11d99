"""Two-stage filtering: the planted neurons and no others; each stage against an independent computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import neuronwise as nw
from neuronwise.errors import MethodError
from neuronwise.images.inpaint import Inpainter
from neuronwise.locate import score_all
from neuronwise.locate.activation_difference import activation_difference, on_another_photo
from neuronwise.locate.gradient import gradient_activation
from neuronwise.locate.scores import Pair, Scores
from neuronwise.locate.thresholds import flat, knee, null, quantile
from neuronwise.locate.two_stage import TwoStage, two_stage
from neuronwise.model.writers import Writer
from wired import DECOYS, HABITS, PLANTED, red_square, wired_llava

PLACES = ((0, 0), (14, 7), (7, 14), (2, 9))


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Any) -> nw.Model:
    return wired_llava(tiny_tokenizer)


@pytest.fixture(scope="module")
def pairs(model: nw.Model) -> list[Pair]:
    """Runs that say "dog" about red squares, with the squares filled."""
    return [pair(model, *red_square(left, top, seed=left)) for left, top in PLACES]


def pair(model: nw.Model, image: Image.Image, mask: np.ndarray[Any, Any]) -> Pair:
    run = model.run(image, "the", max_new_tokens=1)
    assert run.text == "dog"
    return run, run.target("dog"), Inpainter()(image, mask)


def nothing(model: nw.Model, pairs: list[Pair]) -> list[Pair]:
    """Photos without red, of which the same regions are filled; they are read with the same forced output."""
    found: list[Pair] = []
    for number, (run, target, _) in enumerate(pairs):
        gray = Image.fromarray(
            np.random.default_rng(number).integers(90, 110, (28, 28, 1)).repeat(3, 2).astype(np.uint8)
        )
        other = on_another_photo(model, run, gray)
        found.append((other, target, Inpainter()(gray, red_square(*PLACES[number])[1])))
    return found


def units(found: nw.NeuronSet) -> set[tuple[int, int]]:
    return {(neuron.layer, neuron.unit) for neuron in found.neurons}


EXACTLY = {(1, unit) for unit in PLANTED}


@pytest.mark.parametrize(
    ("difference", "gradient"),
    [(0.2, 0.2), ("knee", "knee"), ("quantile", "quantile"), ("null", "null"), ("knee", 0.2)],
)
def test_it_finds_exactly_the_planted_neurons(
    model: nw.Model, pairs: list[Pair], difference: float | str, gradient: float | str
) -> None:
    for chosen, over in ((pairs[:1], "photo"), (pairs, "photo"), (pairs[:1], "concept"), (pairs, "concept")):
        settings = TwoStage(difference, gradient, quantile=1 - 6 / 96, over=over)
        found = two_stage(model, chosen, settings, null=nothing(model, pairs))
        assert units(found) == EXACTLY
        assert found.record["funnel"]["after_vote"] == len(PLANTED)
        for photo in found.record["funnel"]["photos"]:
            assert photo["neurons"] == 96
            assert 96 > photo["after_difference"] >= photo["after_both"] >= len(PLANTED)
        assert [member.score for member in found] == sorted((m.score for m in found), reverse=True)


def test_each_stage_alone_keeps_what_the_other_takes_away(model: nw.Model, pairs: list[Pair]) -> None:
    first = two_stage(model, pairs, TwoStage(0.2, 0.2, stages="difference"))
    second = two_stage(model, pairs, TwoStage(0.2, 0.01, stages="gradient"))
    assert units(first) == EXACTLY | {(1, unit) for unit in DECOYS}
    assert units(second) == EXACTLY | {(1, unit) for unit in HABITS}


def test_the_baselines_miss_as_expected(model: nw.Model, pairs: list[Pair]) -> None:
    """Contribution alone also ranks what always says the word; activation what never says it."""
    run = pairs[0][0]
    count = len(PLANTED) + len(HABITS)
    assert units(nw.locate(model, run, "dog", top=count)) == EXACTLY | {(1, unit) for unit in HABITS}
    active = units(nw.locate(model, run, "dog", method="activation", top=len(PLANTED) + len(DECOYS)))
    assert active == EXACTLY | {(1, unit) for unit in DECOYS}


def test_a_vote_is_needed(model: nw.Model, pairs: list[Pair]) -> None:
    run, target, _ = pairs[0]
    assert run.image is not None
    spoiled = [*pairs[:2], (run, target, run.image)]  # nothing was taken out of the third photo
    assert units(two_stage(model, spoiled, TwoStage(0.2, 0.2, vote=0.6))) == EXACTLY
    assert len(two_stage(model, spoiled, TwoStage(0.2, 0.2, vote=0.7))) == 0
    for strange in (0, 1.5, "most"):
        with pytest.raises(MethodError, match=r"vote=.* is not a share"):
            TwoStage(vote=strange)  # type: ignore[arg-type]


@pytest.mark.parametrize("vote", [0.3, 0.5, 0.7, 1.0])
def test_thresholds_over_a_concept_are_found_on_what_the_vote_asks_for(
    model: nw.Model, pairs: list[Pair], vote: float
) -> None:
    found = two_stage(model, pairs, TwoStage("quantile", "knee", vote=vote, over="concept", quantile=0.9))
    differences, gradients = [], []
    for run, target, inpainted in pairs:
        stage = activation_difference(model, run, [target], inpainted=inpainted)[0]
        differences.append(flat(stage).numpy())
        gradients.append(flat(gradient_activation(model, run, [target], positions="predicting")[0]).numpy())
    count = next(n for n in range(1, len(pairs) + 1) if n / len(pairs) >= vote - 1e-9)
    reached = [np.sort(np.stack(stage), axis=0)[-count] for stage in (differences, gradients)]
    assert 1 < count < len(pairs) or vote in (0.3, 1.0)
    for photo in found.record["funnel"]["photos"]:
        limit = np.sort(reached[0])[int(np.ceil(0.9 * reached[0].size)) - 1]
        assert photo["thresholds"]["difference"] == pytest.approx(limit, rel=1e-5)
        assert photo["thresholds"]["gradient"] == pytest.approx(knee_by_hand(reached[1]), rel=1e-5)


def knee_by_hand(scores: Any) -> float:
    ordered = sorted((max(float(score), 0.0) for score in scores), reverse=True)
    last = len(ordered) - 1
    below = [(1 - place / last) - score / ordered[0] for place, score in enumerate(ordered)]
    return ordered[below.index(max(below))]


@pytest.mark.parametrize("positions", ["predicting", "image", "all"])
def test_stage_1_is_the_difference_of_recorded_activations(model: nw.Model, pairs: list[Pair], positions: str) -> None:
    run, target, inpainted = pairs[1]
    scores = activation_difference(model, run, [target], inpainted=inpainted, positions=positions)[0]
    kept: list[list[torch.Tensor]] = []
    for image in (run.image, inpainted):
        other = on_another_photo(model, run, image)  # type: ignore[arg-type]
        assert other.output_ids == run.output_ids
        assert other.prompted.input_ids == run.prompted.input_ids
        seen: list[torch.Tensor] = []
        handles = [
            layer.mlp.down_proj.register_forward_pre_hook(lambda m, args, seen=seen: seen.append(args[0][0]))
            for layer in model.module.model.language_model.layers
        ]
        try:
            with torch.no_grad():
                model.module(**other.forced_inputs())
        finally:
            for handle in handles:
                handle.remove()
        kept.append(seen)
    length = kept[0][0].shape[0]
    image_rows = [i for i, token in enumerate(run.prompted.input_ids) if token == model.image_token_id]
    rows = {"predicting": [length - 2], "image": image_rows, "all": list(range(length - 1))}[positions]
    for layer in (0, 1):
        expected = (kept[0][layer][rows] - kept[1][layer][rows]).amax(0)
        assert torch.allclose(scores.layer(layer), expected, atol=1e-6)


def scored(values: list[float]) -> Scores:
    half = len(values) // 2
    return Scores(
        {writer(0, width=half): torch.tensor(values[:half]), writer(1, width=half): torch.tensor(values[half:])}
    )


def writer(layer: int, expert: int | None = None, width: int = 2) -> Writer:
    return Writer(layer, expert, nn.Identity(), 0, width, "down", 4, (layer, "down"))


def test_thresholds() -> None:
    hundred = scored([float(n) for n in range(100)])
    assert quantile(hundred, 0.9) == 89.0  # ten of a hundred are above
    assert null([hundred, hundred], 0.01) == 98.0  # two of two hundred are above
    assert null([hundred], 0.001) == 99.0
    steep = scored([10.0, 9.0, 8.0, *[0.01 * n for n in range(50)], *[-5.0] * 47])
    threshold = knee(steep)
    assert 0.3 < threshold < 8.0
    assert knee(scored([-1.0] * 10)) == 0.0


def test_what_it_refuses(model: nw.Model, pairs: list[Pair]) -> None:
    run, target, _ = pairs[0]
    text = model.run(prompt="the cat", max_new_tokens=1, chat=False)
    wrong = [
        (lambda: TwoStage(difference="best"), "not a threshold"),
        (lambda: TwoStage(difference=[0.2]), "difference, a list, does not fit; it takes a number or a text"),  # type: ignore[arg-type]
        (lambda: TwoStage(gradient=float("nan")), "gradient=nan does not fit"),
        (lambda: TwoStage(positions=3), "positions=3 does not fit; it takes a text"),  # type: ignore[arg-type]
        (lambda: TwoStage(over="all"), "over='all' is unknown"),
        (lambda: TwoStage(vote=0), "vote=0"),
        (lambda: TwoStage(stages="third"), "stages="),
        (lambda: two_stage(model, []), "one photo or more"),
        (lambda: two_stage(model, pairs, TwoStage("null")), "without the concept"),
        (lambda: score_all(model, run, [target], "activation_difference"), "inpainted=PHOTO"),
        (lambda: on_another_photo(model, text, Image.new("RGB", (28, 28))), "no photo"),
        (lambda: quantile(scored([1.0, 2.0]), 1.5), "between 0 and 1"),
    ]
    for make, words in wrong:
        with pytest.raises(MethodError, match=words):
            make()


@pytest.mark.parametrize("where", ["dense", "routed"])
def test_shapes(where: str) -> None:
    """Routed neurons count with the router's weight; an expert that only one photo used, with all of that."""
    from types import SimpleNamespace

    from neuronwise.locate.activation_difference import differences
    from neuronwise.locate.positions import reduced
    from neuronwise.model.activations import Activations, ExpertActivation

    def difference(writers: list[Writer], here: Activations, there: Activations, rows: int) -> Scores:
        runs: Any = [
            SimpleNamespace(rows=lambda _, a=a: a, model=SimpleNamespace(writers=writers)) for a in (here, there)
        ]
        return reduced(differences(runs[0], runs[1], range(rows)), "max")

    if where == "dense":
        one, two = (Activations({0: torch.tensor([[a, 2.0], [0.0, 1.0]])}) for a in (1.0, 4.0))
        assert difference([writer(0)], one, two, 2).layer(0).tolist() == [0.0, 0.0]
    else:
        a, b = (ExpertActivation(torch.tensor(values), 0.5) for values in ([1.0, 2.0], [3.0, -1.0]))  # weight ½
        one, two = Activations(routed={0: [{1: a, 4: a}]}), Activations(routed={0: [{1: b, 2: b}]})
        scores = difference([writer(0, expert) for expert in range(5)], one, two, 1)
        assert scores.layer(0, 1).tolist() == [-1.0, 1.5]
        assert scores.layer(0, 4).tolist() == [0.5, 1.0]
        assert scores.layer(0, 2).tolist() == [-1.5, 0.5]
        assert len(scores) == 3


def test_it_is_located_by_name(model: nw.Model, pairs: list[Pair]) -> None:
    run, _, inpainted = pairs[0]
    one = nw.locate(model, run, "dog", method="two_stage", inpainted=inpainted)
    assert units(one) == EXACTLY
    assert (one.record["method"], one.record["target"], one.record["model"]) == ("two_stage", "dog", "wired llava")
    runs, without = [p[0] for p in pairs], [p[2] for p in pairs]
    many = nw.locate(model, runs, "dog", method="two_stage", inpainted=without, top=2)
    assert len(many) == 2
    assert len(many.record["texts"]) == len(pairs)
    for which, photos in ((run, inpainted), (runs, without)):
        stage = nw.locate(model, which, "dog", method="activation_difference", inpainted=photos, top=5)
        assert units(stage) == EXACTLY | {(1, unit) for unit in DECOYS}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "inpainted=PHOTO"),
        ({"inpainted": [inpainted] * 2}, "2 inpainted photos for 1"),
        ({"best": 1}, "best"),
    ]
    for options, words in wrong:
        with pytest.raises(MethodError, match=words):
            nw.locate(model, run, "dog", method="two_stage", **options)
