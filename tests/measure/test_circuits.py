"""Curves of circuits: what is kept is kept and nothing else, counts and areas by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conformed import tiny
from neuronwise.errors import MethodError
from neuronwise.locate.baseline import Baseline
from neuronwise.measure.bootstrap import interval_of_means, mean_interval
from neuronwise.measure.circuits import Kept, areas, circuit_curves
from neuronwise.model import Run
from neuronwise.model.hooks import Hooks, first_tensor, replace_first

WEIGHTS = {9: 1.0, 4: -0.5, 5: -0.5}


def tiny_run(name: str = "llama") -> Run:
    model, prompted, _ = tiny(name)
    return Run.of(model, prompted, [5, 6])


def by_hand(run: Run, kept: dict[int, Tensor], fill: dict[int, Tensor]) -> float:
    """m with W_down's inputs replaced by ``fill`` where ``kept`` (rows, width) is False, layer by layer."""

    def put(layer: int) -> Any:
        def before(module: Any, args: Any, kwargs: Any) -> Any:
            a = first_tensor(args, kwargs)
            return replace_first(args, kwargs, torch.where(kept[layer], a, fill[layer].to(a)))

        return before

    with torch.no_grad(), Hooks() as hooks:
        for layer in kept:
            hooks.before(run.model.module.get_submodule(f"model.layers.{layer}.mlp.down_proj"), put(layer))
        logits = run.model.module(input_ids=run.forced_inputs(1)["input_ids"], use_cache=False).logits[0, -1]
    return float(sum(weight * logits[token] for token, weight in WEIGHTS.items()))


@pytest.mark.parametrize("usual", [False, True])
def test_all_but_what_is_kept_is_at_its_baseline(usual: bool) -> None:
    run = tiny_run()
    model, target = run.model, run.target(target=9, position=1)
    baseline = Baseline.gather(model, [run]) if usual else None
    kept = Kept(model, run, target, WEIGHTS, baseline)
    assert kept.rows == 8
    fill = {w.layer: torch.zeros(w.width) if baseline is None else baseline.mean(w) for w in model.writers}
    generator = torch.Generator().manual_seed(0)
    sets = [{w: torch.rand(8, w.width, generator=generator) < share for w in model.writers} for share in (0.1, 0.9)]
    for one, value in zip(sets, kept.kept(sets), strict=True):
        expected = by_hand(run, {writer.layer: mask for writer, mask in one.items()}, fill)
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)
    everything = {w.layer: torch.ones(8, w.width, dtype=torch.bool) for w in model.writers}
    assert kept.whole == pytest.approx(by_hand(run, everything, fill), rel=1e-4)
    nothing = {layer: ~mask for layer, mask in everything.items()}
    assert kept.nothing == pytest.approx(by_hand(run, nothing, fill), rel=1e-4)
    assert abs(kept.whole - kept.nothing) > 0.05


def test_curves_keep_the_first_k_and_their_complement() -> None:
    run = tiny_run()
    model, target = run.model, run.target(target=9, position=1)
    kept = Kept(model, run, target, WEIGHTS, None)
    generator = torch.Generator().manual_seed(1)
    ranking = {w: torch.rand(8, w.width, generator=generator) for w in model.writers}
    last = {w: torch.full((8, w.width), -1.0) for w in model.writers}
    for writer in model.writers:
        last[writer][-1] = ranking[writer][-1]
    counts = [1, 7, 144, 200, 100000]
    curves = circuit_curves(kept, {"all": ranking, "last": last}, counts)
    assert curves["all"].counts == (1, 7, 144, 200)  # there are 8 × 144 of them
    assert curves["all"].total == 8 * 144
    flat = torch.cat([values.flatten() for values in ranking.values()])
    fill = {w.layer: torch.zeros(w.width) for w in model.writers}
    for at, count in enumerate(curves["all"].counts):
        least = flat.sort(descending=True).values[count - 1]
        first = {w.layer: values >= least for w, values in ranking.items()}
        assert sum(int(mask.sum()) for mask in first.values()) == count
        rest = {layer: ~mask for layer, mask in first.items()}
        assert curves["all"].kept[at] == pytest.approx(by_hand(run, first, fill), rel=1e-4, abs=1e-5)
        assert curves["all"].left[at] == pytest.approx(by_hand(run, rest, fill), rel=1e-4, abs=1e-5)
    # The last position has 144 neurons: once all are kept the curve is level.
    assert curves["last"].kept[3] == curves["last"].kept[2]
    span = kept.whole - kept.nothing
    assert curves["all"].faithfulness[1] == pytest.approx((curves["all"].kept[1] - kept.nothing) / span)
    assert curves["all"].completeness[1] == pytest.approx((curves["all"].left[1] - kept.nothing) / span)


def test_routed_experts_are_refused() -> None:
    run = tiny_run("qwen2_moe")
    with pytest.raises(MethodError, match="routed experts"):
        Kept(run.model, run, run.target(target=9, position=1), WEIGHTS, None)


def test_areas_by_hand() -> None:
    cpr, cmd = areas(np.array([[0.1, 0.5], [0.1, 0.5]]), np.array([[0.5, 1.5], [0.0, 1.0]]))
    assert cpr == pytest.approx([0.1 * 0.25 + 0.4 * 1.0 + 0.5 * 1.25, 0.4 * 0.5 + 0.5 * 1.0])
    assert cmd == pytest.approx([0.1 * 0.75 + 0.4 * 0.5 + 0.5 * 0.25, 0.1 * 1.0 + 0.4 * 0.5])
    perfect, none = areas(np.array([[1e-9]]), np.array([[1.0]]))
    assert (float(perfect[0]), float(none[0])) == pytest.approx((1.0, 0.0), abs=1e-6)


def test_a_ratio_of_means_has_an_interval() -> None:
    pairs = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0], [0.0, 1.0]])
    found = interval_of_means(pairs, lambda means: means[:, 0] / means[:, 1])
    assert found.mean == pytest.approx(9 / 13)
    assert found.low < found.mean < found.high
    assert found.n == 4
    same = interval_of_means(pairs[:, :1], lambda means: means[:, 0])
    assert same == mean_interval(pairs[:, 0])
