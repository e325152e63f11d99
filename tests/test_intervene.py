"""Interventions do what their formula says, where they are told to, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import families
import neuronwise as nw
from edits import same, weights
from neuronwise import intervene
from neuronwise.errors import MethodError
from neuronwise.model import Model, Run
from neuronwise.model.passes import inputs_of
from neuronwise.model.prompt import Prompted

UNITS = [3, 17]
NEURONS = [f"L1.U{u}" for u in UNITS]


def ids(model: Model, batch: int = 1) -> dict[str, Tensor]:
    tokens = model.tokenizer("the cat sits on the mat", return_tensors="pt")["input_ids"]
    return {"input_ids": torch.cat([tokens.roll(k, 1) for k in range(batch)])}


def by_hand(model: Model, change: Callable[[Tensor], Tensor], inputs: dict[str, Tensor]) -> Tensor:
    """Logits with the input of layer 1's W_down changed by a hook of torch's own."""
    handle = model.module.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda m, a: (change(a[0].clone()),))
    try:
        return model.module(**inputs).logits.detach()
    finally:
        handle.remove()


def written(activations: Tensor, value: Any, rows: Any = slice(None)) -> Tensor:
    for k, unit in enumerate(UNITS):
        new: Any = value(activations[:, rows, unit]) if callable(value) else value[k]
        activations[:, rows, unit] = new
    return activations


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("rows", [None, [0], [2, 4]])
def test_suppress_and_scale(model: Model, batch: int, rows: list[int] | None) -> None:
    inputs = ids(model, batch)
    at = slice(None) if rows is None else rows
    for factor in (0.0, -2.5):
        expected = by_hand(model, lambda a, c=factor: written(a, lambda x: c * x, at), inputs)
        with intervene.scale(model, NEURONS, factor, rows):
            assert torch.allclose(model.module(**inputs).logits, expected, atol=1e-5)
    with intervene.suppress(model, NEURONS, rows):
        zeroed = by_hand(model, lambda a: written(a, [0.0, 0.0], at), inputs)
        assert torch.allclose(model.module(**inputs).logits, zeroed, atol=1e-5)


def test_mean_ablation(model: Model) -> None:
    runs = [model.run(prompt=text, max_new_tokens=2) for text in ("the cat", "a dog sits on the mat")]
    rows = torch.cat([model.record(run.forced_inputs()).dense[1] for run in runs])
    means = intervene.mean_activations(model, NEURONS, runs)
    assert [means[n] for n in nw.NeuronSet.of(NEURONS).neurons] == pytest.approx(
        rows[:, UNITS].mean(0).tolist(), rel=1e-5
    )
    expected = by_hand(model, lambda a: written(a, list(means.values())), ids(model))
    with intervene.mean_ablate(model, NEURONS, means):
        assert torch.allclose(model.module(**ids(model)).logits, expected, atol=1e-5)
    with pytest.raises(MethodError, match=r"no mean for L0\.U0"), intervene.mean_ablate(model, ["L0.U0"], means):
        pass


@pytest.mark.parametrize("rows", [None, [1, 5]])
def test_noise_is_on_the_value_vectors(model: Model, rows: list[int] | None) -> None:
    inputs = ids(model, 2)
    before = model.module(**inputs).logits.detach()
    weight = model.blocks[1].value_vectors
    saved = weight.clone()
    noise = torch.randn(2, 32, generator=torch.Generator().manual_seed(4)).T * 0.7
    with intervene.perturb(model, NEURONS, 0.7, seed=4, positions=rows):
        changed = model.module(**inputs).logits.detach()
        assert torch.equal(weight, saved)
    if rows is None:
        weight[:, UNITS] += noise
        expected = model.module(**inputs).logits.detach()
        weight.copy_(saved)
        assert torch.allclose(changed, expected, atol=1e-5)
    else:
        assert torch.allclose(changed[:, 0], before[:, 0], atol=1e-6)
        assert not torch.allclose(changed[:, 1], before[:, 1], atol=1e-4)


def test_patching_from_another_run(model: Model) -> None:
    source = model.run(prompt="a dog runs in the blue house", max_new_tokens=0)
    theirs = model.record(source.forced_inputs()).dense[1]

    def change(a: Tensor) -> Tensor:
        for here, there in ((2, 4), (5, 0)):
            a[0, here, UNITS] = theirs[there, UNITS]
        return a

    expected = by_hand(model, change, ids(model))
    with intervene.patch(model, NEURONS, source, {2: 4, 5: 0}):
        assert torch.allclose(model.module(**ids(model)).logits, expected, atol=1e-5)
    with pytest.raises(MethodError, match="positions 0 to"), intervene.patch(model, NEURONS, source, [99]):
        pass


def test_positions_hold_through_generation_with_the_cache(model: Model) -> None:
    prompt = "the cat sits on the mat"
    length = ids(model)["input_ids"].shape[1]
    with intervene.suppress(model, [f"L{layer}.U{u}" for layer in range(3) for u in range(48)], [length + 1]):
        run = model.run(prompt=prompt, max_new_tokens=4)
    plain = model.run(prompt=prompt, max_new_tokens=4)
    assert run.output_ids[:2] == plain.output_ids[:2]
    with intervene.suppress(model, NEURONS, [length + 1]):
        cached = model.run(prompt=prompt, max_new_tokens=4)
        forced = model.forward(cached.forced_inputs())
    step = [int(row.argmax()) for row in forced[0, length - 1 : length - 1 + len(cached.output_ids)]]
    assert step == cached.output_ids


def test_they_nest_and_leave_nothing_behind_also_when_the_body_raises(model: Model) -> None:
    inputs = ids(model)
    before = model.module(**inputs).logits.detach()
    state = weights(model)
    with pytest.raises(RuntimeError, match="inside"):
        with intervene.suppress(model, NEURONS), intervene.scale(model, ["L0.U1"], 3.0):
            with intervene.perturb(model, ["L2.U5"], 1.0):
                assert not torch.allclose(model.module(**inputs).logits, before, atol=1e-4)
                raise RuntimeError("inside")
    assert torch.equal(model.module(**inputs).logits, before)
    assert same(state, weights(model))


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_routed_experts(name: str) -> None:
    module, inputs = families.tiny(name)
    model = Model(module)
    before = model.module(**inputs).logits.detach()
    neurons = [f"L1.E{expert}.U2" for expert in range(model.blocks[1].num_experts)]
    saved = [model.blocks[1].value_vector(nw.Neuron.parse(n)).clone() for n in neurons]
    for enter in (
        lambda: intervene.suppress(model, neurons),
        lambda: intervene.scale(model, neurons, 2.0),
        lambda: intervene.perturb(model, neurons, 0.5),
    ):
        with enter():
            assert not torch.allclose(model.module(**inputs).logits, before, atol=1e-5)
        after = [model.blocks[1].value_vector(nw.Neuron.parse(n)) for n in neurons]
        assert all(torch.equal(a, b) for a, b in zip(after, saved, strict=True))
    with pytest.raises(MethodError, match="at all positions"), intervene.suppress(model, neurons, [0]):
        pass


def test_shuffling_image_tokens() -> None:
    module, inputs = families.tiny("llava")
    model = Model(module)
    run = Run.of(model, Prompted("", False, inputs), image=Image.new("RGB", (8, 8)))
    with inputs_of(model.blocks[0].module) as seen:
        model.forward(inputs, rows=[-1])
    with intervene.shuffle_image_tokens(model, run, seed=1), inputs_of(model.blocks[0].module) as again:
        model.forward(inputs, rows=[-1])
    at = run.image_positions
    plain, shuffled = seen[0][0], again[0][0]
    others = [i for i in range(len(plain)) if i not in at.tolist()]
    assert torch.equal(plain[others], shuffled[others])
    assert not torch.equal(plain[at], shuffled[at])
    assert torch.equal(plain[at].sort(0).values, shuffled[at].sort(0).values)


def test_positions_that_are_none(model: Model) -> None:
    with pytest.raises(MethodError, match="count from 0"), intervene.suppress(model, NEURONS, [-1]):
        pass
