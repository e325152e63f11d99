"""WISE: its steps and margins written again in plain torch, TIES by hand, and where the memory takes over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import families
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit import EDITORS, wise
from neuronwise.edit.wise import UNRELATED, ties
from neuronwise.errors import MethodError
from neuronwise.model.model import Model

FACTS = (Fact("the capital of {} is", "France", "cat house"), Fact("{} sits on the", "cat", "red"))
LAYER = 1


@pytest.fixture(params=["llama", "gpt2"])
def model(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Model:
    return Model(families.tiny(request.param)[0], tiny_tokenizer, name=request.param)


@pytest.mark.parametrize("former", [None, "merged", "carried"])
def test_its_steps_are_those_of_plain_gradient_descent(model: Model, former: str | None) -> None:
    """The whole loss with W' in the module itself, at the places where the target is predicted, all of W' free.

    With ``former`` a fact is replayed that is in a merged memory of the same edit, or in an edit that the model
    carries.
    """
    settings: dict[str, Any] = {"layer": LAYER, "share": 1.0, "steps": 3, "rate": 0.05, "norm_constraint": 0.2}
    settings |= {"alpha": 0.1, "beta": 0.5, "gamma": 0.2, "facts_each": 1, "merged": 1, "replay": former is not None}
    if former == "carried":
        with wise(model, FACTS[1], **settings).applied(model):
            edit = wise(model, FACTS[0], **settings)
    else:
        edit = wise(model, FACTS[::-1] if former else FACTS[0], **settings)
    run = forced(model, FACTS[0])
    ids, target = run.prompted.inputs["input_ids"], torch.tensor(run.output_ids)
    both = torch.cat([ids, target[None]], 1)
    where = torch.arange(ids.shape[1] - 1, both.shape[1] - 1)
    other = model.prepare(prompt=UNRELATED[former == "merged"], chat=False)[0].inputs["input_ids"]
    replayed = forced(model, FACTS[1])
    earlier = replayed.forced_inputs()["input_ids"]
    predicting = slice(replayed.row(0), replayed.row(0) + len(replayed.output_ids))
    module: Any = families.tiny(model.name)[0].requires_grad_(False)
    layers = module.model.layers if model.name == "llama" else module.transformer.h
    writer = layers[LAYER].mlp.down_proj if model.name == "llama" else layers[LAYER].mlp.c_proj
    shape = model.blocks[LAYER].dense[0].vectors.shape
    change = torch.zeros(shape, requires_grad=True)
    seen: list[Tensor] = []

    def hook(module: Any, args: Any, output: Tensor) -> Tensor:
        moved = args[0] @ change.T
        seen.append(moved.norm(dim=-1)[0])
        return torch.stack([row + (moved[0, at] if at in where else 0) for at, row in enumerate(output[0])])[None]

    for _ in range(3):
        seen.clear()
        handle = writer.register_forward_hook(hook)
        logits = module(input_ids=both).logits[0, where]
        module(input_ids=other)
        module(input_ids=earlier)
        handle.remove()
        own, out = seen[0][where], seen[1]
        parts = [(out[:, None] - own + 0.2).flatten(), out - 0.1, 0.5 - own]
        if former:
            parts += [seen[2][predicting] - 0.1, 0.5 - own]
        loss = torch.nn.functional.cross_entropy(logits, target)
        for part in parts:
            if (part > 0).any():
                loss = loss + part[part > 0].mean()
        (gradient,) = torch.autograd.grad(loss, change)
        change = (change.detach() - 0.05 * gradient).clamp(-0.2, 0.2).requires_grad_(True)
    tensors = edit.memories[-1].tensors
    torch.testing.assert_close(tensors["change"], change.detach(), atol=1e-5, rtol=1e-3)
    with torch.no_grad():
        handle = writer.register_forward_hook(hook)
        seen.clear()
        module(input_ids=both)
        handle.remove()
    assert float(tensors["threshold"]) == pytest.approx(0.88 * float(seen[0][where].min()), rel=1e-3)


def test_the_memory_takes_over_above_its_threshold_alone(model: Model) -> None:
    edit = wise(model, FACTS, layer=LAYER, steps=5)
    (memory,) = edit.memories
    module = model.blocks[LAYER].dense[0].module
    inputs, seen = forced(model, FACTS[0]).forced_inputs(), list[Any]()
    for _ in range(2):
        handle = module.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
        model.forward(inputs)
        handle.remove()
        edit.apply(model) if not model.edits else edit.revert(model)
    (read, before), (_, after) = ((x.detach(), y.detach()) for x, y in seen)
    moved = read @ memory.tensors["change"].T
    used = moved.norm(dim=-1, keepdim=True) > memory.tensors["threshold"]
    assert used.any()
    torch.testing.assert_close(after, torch.where(used, before + moved, before))
    assert model.edits == ()


def test_only_a_share_of_the_weights_moves(model: Model) -> None:
    change = wise(model, FACTS[0], layer=LAYER, steps=2, share=0.25).memories[0].tensors["change"]
    assert 0.15 < float((change != 0).float().mean()) < 0.3
    again = wise(model, FACTS[0], layer=LAYER, steps=2, share=0.25, seed=1).memories[0].tensors["change"]
    assert not torch.equal(change != 0, again != 0)


def test_shards_are_merged_by_ties(model: Model) -> None:
    one, two = (torch.tensor(values) for values in ([4.0, -3.0, 0.1, 2.0], [2.0, 5.0, 0.2, -1.0]))
    # Kept are half of each: (4, −3, 0, 0) and (2, 5, 0, 0); the second place has the sign of 5 − 3.
    assert ties([one, two], 0.5).tolist() == [3.0, 5.0, 0.0, 0.0]
    settings: dict[str, Any] = {"layer": LAYER, "steps": 2, "facts_each": 1}
    apart = wise(model, FACTS, merged=1, **settings).memories
    (merged,) = wise(model, FACTS, merged=2, **settings).memories
    assert len(apart) == 2
    changes = [memory.tensors["change"] for memory in apart]
    assert torch.equal(merged.tensors["change"], ties(changes, 0.53))
    assert float(merged.tensors["threshold"]) == min(float(memory.tensors["threshold"]) for memory in apart)


def test_presets_are_the_published_ones_and_bad_settings_are_said(model: Model) -> None:
    presets = {name: preset.settings for name, preset in EDITORS["wise"].presets.items()}
    assert [presets[name].layer for name in ("gptj", "llama-2", "llama-3", "qwen2")] == [21, 27, 29, 23]
    assert (presets["llama-3"].alpha, presets["llama-3"].ratio, presets["gptj"].beta) == (2.0, 0.5, 40.0)
    for changes, words in (({"share": 0.0}, "share"), ({"merged": 0}, "merged"), ({"layer": 7}, "Layer 7")):
        with pytest.raises(MethodError, match=words):
            wise(model, FACTS[0], **changes)  # type: ignore[arg-type]
