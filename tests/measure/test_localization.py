"""Deletion and insertion curves: against interventions one by one, areas by hand, and the planted neurons."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import neuronwise as nw
from families import tiny
from neuronwise.errors import MethodError, NeuronError, NeuronwiseError
from neuronwise.intervene import mean_ablate, suppress
from neuronwise.measure.localization import Ablation, Curves, all_curves, area, curves, mean_fill
from neuronwise.model.prompt import Prompted
from neuronwise.model.run import Target
from neuronwise.neurons import Neuron, NeuronSet
from wired import DECOYS, HABITS, PLANTED, red_square, wired_llava

ALL = [Neuron(layer, unit) for layer in (0, 1) for unit in range(48)]
TRUE = [Neuron(1, unit) for unit in PLANTED]
OTHERS = [n for n in ALL if n not in TRUE and n.layer == 1 and n.unit not in HABITS]


@pytest.fixture(scope="module")
def model(tiny_tokenizer: Any) -> nw.Model:
    return wired_llava(tiny_tokenizer)


@pytest.fixture(scope="module")
def run(model: nw.Model) -> nw.Run:
    found = model.run(red_square(2, 9)[0], "the", max_new_tokens=1)
    assert found.text == "dog"
    return found


def log_p(model: nw.Model, run: nw.Run, token: int) -> float:
    """By one plain pass over the prompt."""
    with torch.no_grad():
        return float(model.module(**run.prompted.inputs).logits[0, -1].log_softmax(-1)[token])


def test_taking_away_equals_suppressing_set_by_set(model: nw.Model, run: nw.Run) -> None:
    target = run.target("dog")
    sets = [TRUE[:1], TRUE, OTHERS[:7], [*TRUE, *OTHERS[3:9], Neuron(0, 4)]]
    last = len(run.prompted.input_ids) - 1
    for positions, only_at in (("predicting", [last]), ("all", None)):
        ablation = Ablation(model, run, target, positions=positions)
        assert ablation.before == pytest.approx(log_p(model, run, target.token_id), abs=1e-5)
        for chosen, found in zip(sets, ablation.without(sets), strict=True):
            with suppress(model, chosen, only_at):
                assert found == pytest.approx(log_p(model, run, target.token_id), abs=1e-5)
        for chosen, found in zip(sets, ablation.only(sets), strict=True):
            with suppress(model, [n for n in ALL if n not in chosen], only_at):
                assert found == pytest.approx(log_p(model, run, target.token_id), abs=1e-5)
        with suppress(model, ALL, only_at):
            assert ablation.none == pytest.approx(log_p(model, run, target.token_id), abs=1e-5)


def test_the_positions_differ_where_earlier_ones_matter(tiny_model: nw.Model) -> None:
    run = tiny_model.run(prompt="the cat sits on", max_new_tokens=0, chat=False)
    target = run.target(target=" mat")
    sets = [[Neuron(0, unit) for unit in range(48)]]
    found = [Ablation(tiny_model, run, target, positions=p).without(sets)[0] for p in ("predicting", "all")]
    assert abs(found[0] - found[1]) > 1e-3


def test_means_take_the_place_of_zeros(tiny_model: nw.Model) -> None:
    runs = [tiny_model.run(prompt=p, max_new_tokens=0, chat=False) for p in ("the cat sits on", "a dog runs in")]
    target = runs[0].target(target=" mat")
    fill = mean_fill(tiny_model, [(run, run.target(target=" mat")) for run in runs])
    expected = torch.stack([run.activations(0).dense[1][0] for run in runs]).mean(0)
    assert torch.allclose(fill[str(tiny_model.writer(Neuron(1, 0)))], expected)
    chosen = [Neuron(1, unit) for unit in range(20)]
    means = {n: float(expected[n.unit]) for n in chosen}
    found = Ablation(tiny_model, runs[0], target, fill=fill).without([chosen])[0]
    with mean_ablate(tiny_model, chosen, means, positions=[len(runs[0].prompted.input_ids) - 1]):
        assert found == pytest.approx(log_p(tiny_model, runs[0], target.token_id), abs=1e-5)
    zeroed = Ablation(tiny_model, runs[0], target).without([chosen])[0]
    assert abs(found - zeroed) > 1e-3


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "deepseek_v3"])
def test_neurons_of_routed_experts_are_taken_away_too(family: str) -> None:
    """Against weights set to zero by hand, in a whole pass or behind a cache of the unchanged earlier positions."""
    module, inputs = tiny(family)
    model = nw.Model(module, name=family)
    run = nw.Run(model, Prompted("", False, inputs), [], [], None)
    target = Target(29, 0, "t")
    chosen = [writer.neuron(column) for writer in model.writers for column in range(0, writer.width, 3)]
    rest = [neuron for writer in model.writers for neuron in writer.neurons if neuron not in set(chosen)]
    kept = {name: value.clone() for name, value in module.state_dict().items()}
    for positions in ("predicting", "all"):
        ablation = Ablation(model, run, target, positions=positions)
        found = [ablation.without([chosen])[0], ablation.only([chosen])[0]]
        assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
        for value, gone in zip(found, (chosen, rest), strict=True):
            assert value == pytest.approx(_by_hand(model, inputs, gone, target.token_id, positions), abs=1e-4)
        assert abs(found[0] - ablation.before) > 1e-4
    fill = mean_fill(model, [(run, target)])
    writers = {neuron: model.writer(neuron) for neuron in chosen}
    means = {neuron: float(fill[str(writer)][neuron.unit - writer.first]) for neuron, writer in writers.items()}
    with mean_ablate(model, chosen, means), torch.no_grad():
        expected = float(model.forward(inputs, rows=[-1])[0, -1].float().log_softmax(-1)[target.token_id])
    value = Ablation(model, run, target, fill=fill, positions="all").without([chosen])[0]
    assert value == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def _by_hand(model: nw.Model, inputs: dict[str, Any], gone: list[Neuron], token: int, positions: str) -> float:
    ids, cache = inputs["input_ids"], None
    if positions == "predicting":
        cache = model.module(input_ids=ids[:, :-1], use_cache=True).past_key_values
    by_writer = model.by_writer(gone)
    saved = {writer: writer.vectors.clone() for writer in by_writer}
    for writer, own in by_writer.items():
        writer.own_weight[:, writer.columns(own)] = 0
    read = ids if cache is None else ids[:, -1:]
    logits = model.module(input_ids=read, past_key_values=cache, use_cache=cache is not None).logits[0, -1]
    for writer, vectors in saved.items():
        writer.own_weight.copy_(vectors)
    return float(logits.float().log_softmax(-1)[token])


def test_the_planted_neurons_carry_the_word_and_suffice_for_it(model: nw.Model, run: nw.Run) -> None:
    ablation = Ablation(model, run, run.target("dog"))
    truth = NeuronSet.of([*TRUE, *OTHERS])
    wrong = NeuronSet.of([*(Neuron(1, unit) for unit in DECOYS), *OTHERS[-20:-3]])
    counts = (1, 2, 3, 10, 19)
    both = all_curves(ablation, {"truth": truth, "wrong": wrong}, counts)
    good, bad = both["truth"], both["wrong"]
    assert good.drops[0] < good.drops[1] < good.drops[2]
    assert good.drops[2] > 2  # nats: the three are the word
    assert good.drops[3:] == pytest.approx([good.drops[2]] * 2, abs=0.05)  # and no others are
    assert good.gains[2] > 2
    assert good.insertion[2] == pytest.approx(ablation.before, abs=0.5)
    assert max(map(abs, bad.drops)) < 0.05
    assert max(map(abs, bad.gains)) < 0.05
    assert good.deletion_area > 20 * abs(bad.deletion_area)
    assert good.insertion_area > 20 * abs(bad.insertion_area)
    assert curves(ablation, truth, counts) == good


def test_a_short_set_goes_on_level(model: nw.Model, run: nw.Run) -> None:
    found = curves(Ablation(model, run, run.target("dog")), NeuronSet.of(TRUE), (1, 3, 50))
    assert found.found == 3
    assert found.deletion[2] == found.deletion[1]
    assert found.insertion[2] == found.insertion[1]
    nothing = curves(Ablation(model, run, run.target("dog")), NeuronSet(), (1, 3))
    assert nothing.drops == pytest.approx((0, 0), abs=1e-5)
    assert nothing.gains == pytest.approx((0, 0), abs=1e-5)


def test_areas_are_mean_heights_over_log_k() -> None:
    counts = (1, 10, 100, 1000)
    assert area(counts, [2.5] * 4) == pytest.approx(2.5)
    assert area(counts, [math.log(k) for k in counts]) == pytest.approx(math.log(1000) / 2)
    assert area(counts, [0, 0, 6, 6]) == pytest.approx(3)
    assert area((1, 10, 1000), [0, 3, 3]) == pytest.approx((1.5 * 1 + 3 * 2) / 3)
    assert area((7,), [4.0]) == 4.0
    shape = Curves((1, 100), -1.0, -9.0, (-2.0, -5.0), (-8.0, -3.0), 100)
    assert (shape.deletion_area, shape.insertion_area) == (pytest.approx(2.5), pytest.approx(3.5))


def test_what_is_refused(model: nw.Model, run: nw.Run) -> None:
    target = run.target("dog")
    ablation = Ablation(model, run, target)
    for counts in ((), (0, 1), (1, 1), (5, 2)):
        with pytest.raises(MethodError, match="counts are"):
            curves(ablation, NeuronSet.of(TRUE), counts)
    with pytest.raises(NeuronwiseError, match="do not go with"):
        area((1, 2), [1.0])
    with pytest.raises(MethodError, match="positions="):
        Ablation(model, run, target, positions="some")
    with pytest.raises(NeuronError):
        ablation.without([[Neuron(1, 4800)]])
    with pytest.raises(MethodError, match="one run or more"):
        mean_fill(model, [])
