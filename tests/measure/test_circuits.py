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
from neuronwise.model.writers import Writer

WEIGHTS = {9: 1.0, 4: -0.5, 5: -0.5}


def tiny_run(name: str = "llama") -> Run:
    model, prompted, photo = tiny(name)
    return Run.of(model, prompted, [5, 6], photo)


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


def fill_of(run: Run, kind: str) -> dict[Writer, Tensor]:
    writers = run.model.writers
    if kind == "zero":
        return {}
    if kind == "mean":
        baseline = Baseline.gather(run.model, [run])
        return {writer: baseline.mean(writer) for writer in writers}
    generator = torch.Generator().manual_seed(3)
    return {writer: torch.randn(8, writer.width, generator=generator) for writer in writers}


@pytest.mark.parametrize("long", [4, 9])
@pytest.mark.parametrize("kind", ["zero", "mean", "twin"])
def test_all_but_what_is_kept_is_at_its_fill(kind: str, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronwise.measure.circuits.LONG", long)
    run = tiny_run()
    model, target = run.model, run.target(target=9, position=1)
    given = fill_of(run, kind)
    kept = Kept(model, run, target, WEIGHTS, given)
    assert kept.rows == 8
    fill = {w.layer: given.get(w, torch.zeros(w.width)) for w in model.writers}
    generator = torch.Generator().manual_seed(0)
    sets = [{w: torch.rand(8, w.width, generator=generator) < share for w in model.writers} for share in (0.1, 0.9)]
    at_last = [{w: mask.clone() for w, mask in sets[0].items()} for _ in range(2)]
    for writer in model.writers:  # that share what was read before the last position
        at_last[0][writer][:-1], at_last[1][writer][:-1] = False, True
    sets = [at_last[0], *sets, at_last[1]]
    for one, value in zip(sets, kept.kept(sets), strict=True):
        expected = by_hand(run, {writer.layer: mask for writer, mask in one.items()}, fill)
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)
    everything = {w.layer: torch.ones(8, w.width, dtype=torch.bool) for w in model.writers}
    assert kept.whole == pytest.approx(by_hand(run, everything, fill), rel=1e-4)
    nothing = {layer: ~mask for layer, mask in everything.items()}
    assert kept.nothing == pytest.approx(by_hand(run, nothing, fill), rel=1e-4)
    assert abs(kept.whole - kept.nothing) > 0.05


def test_sets_that_differ_at_the_last_position_alone_are_read_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronwise.measure.circuits.LONG", 4)
    run = tiny_run()
    kept = Kept(run.model, run, run.target(target=9, position=1), WEIGHTS, {})
    monkeypatch.setattr(Kept, "_copies", None)  # a whole pass would fail
    ranking = {w: torch.full((8, w.width), -1.0) for w in run.model.writers}
    for values in ranking.values():
        values[-1] = torch.arange(values.shape[1])
    (curves,) = circuit_curves([kept], {"last": ranking}, [1, 10])
    assert len(set(curves["last"].kept + curves["last"].left)) == 4


@pytest.mark.parametrize("long", [4, 10**6])
def test_a_photo_is_read_once_for_all_sets(long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronwise.measure.circuits.LONG", long)
    run = tiny_run("llava")
    model, target = run.model, run.target(target=9, position=1)
    kept = Kept(model, run, target, WEIGHTS, {})
    generator = torch.Generator().manual_seed(0)
    sets = [{w: torch.rand(kept.rows, w.width, generator=generator) < 0.5 for w in model.writers} for _ in range(3)]
    for writer in model.writers:
        sets[1][writer][:-1], sets[2][writer][:-1] = False, True
    inputs = run.forced_inputs(1)
    for one, value in zip(sets, kept.kept(sets), strict=True):
        with torch.no_grad(), Hooks() as hooks:
            for writer, mask in one.items():
                hooks.before(writer.module, lambda m, args, kw, mask=mask: replace_first(args, kw, args[0] * mask))
            logits = model.module(**model.placed(inputs), use_cache=False).logits[0, -1]
        expected = float(sum(weight * logits[token] for token, weight in WEIGHTS.items()))
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_curves_keep_the_first_k_and_their_complement() -> None:
    run = tiny_run()
    model, target = run.model, run.target(target=9, position=1)
    fills = [fill_of(run, kind) for kind in ("zero", "twin")]
    kept = [Kept(model, run, target, WEIGHTS, fill) for fill in fills]
    generator = torch.Generator().manual_seed(1)
    ranking = {w: torch.rand(8, w.width, generator=generator) for w in model.writers}
    last = {w: torch.full((8, w.width), -1.0) for w in model.writers}
    for writer in model.writers:
        last[writer][-1] = ranking[writer][-1]
    flat = torch.cat([values.flatten() for values in ranking.values()])
    for given, one, curves in zip(
        fills, kept, circuit_curves(kept, {"all": ranking, "last": last}, [1, 7, 144, 200, 100000]), strict=True
    ):
        assert curves["all"].counts == (1, 7, 144, 200)  # there are 8 × 144 of them
        assert curves["all"].total == 8 * 144
        fill = {w.layer: given.get(w, torch.zeros(w.width)) for w in model.writers}
        for at, count in enumerate(curves["all"].counts):
            least = flat.sort(descending=True).values[count - 1]
            first = {w.layer: values >= least for w, values in ranking.items()}
            assert sum(int(mask.sum()) for mask in first.values()) == count
            rest = {layer: ~mask for layer, mask in first.items()}
            assert curves["all"].kept[at] == pytest.approx(by_hand(run, first, fill), rel=1e-4, abs=1e-5)
            assert curves["all"].left[at] == pytest.approx(by_hand(run, rest, fill), rel=1e-4, abs=1e-5)
        # The last position has 144 neurons: once all are kept the curve is level.
        assert curves["last"].kept[3] == curves["last"].kept[2]
        span = one.whole - one.nothing
        assert curves["all"].faithfulness[1] == pytest.approx((curves["all"].kept[1] - one.nothing) / span)
        assert curves["all"].completeness[1] == pytest.approx((curves["all"].left[1] - one.nothing) / span)


def test_ties_are_kept_in_order() -> None:
    run = tiny_run()
    target = run.target(target=9, position=1)
    kept = Kept(run.model, run, target, WEIGHTS, {})
    equal = {w: torch.ones(8, w.width) for w in run.model.writers}
    falling = {w: torch.full((8, w.width), 2.0 - number) for number, w in enumerate(run.model.writers)}
    (curves,) = circuit_curves([kept], {"equal": equal, "falling": falling}, [5])
    assert curves["equal"].kept == curves["falling"].kept


def test_routed_experts_are_refused() -> None:
    run = tiny_run("qwen2_moe")
    with pytest.raises(MethodError, match="routed experts"):
        Kept(run.model, run, run.target(target=9, position=1), WEIGHTS, {})


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
