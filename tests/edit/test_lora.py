"""LoRA against the peft library: the same factors, the same steps, the same change."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import families
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit import EDITORS, lora
from neuronwise.errors import MethodError, NeuronwiseError
from neuronwise.model.model import Model

FACT = Fact("the capital of {} is", "France", "cat house")


@pytest.fixture
def model(tiny_tokenizer: Any) -> Model:
    return Model(families.tiny("llama")[0], tiny_tokenizer, name="llama")


def test_it_is_what_peft_trains(model: Model) -> None:
    peft = pytest.importorskip("peft")
    settings: dict[str, Any] = {"rank": 2, "alpha": 6.0, "rate": 1e-2, "layers": (0, 2), "seed": 3}
    start = lora(model, FACT, steps=1, enough=1e9, **settings)  # ended before the first step: A as drawn, B = 0
    assert not any(delta.left.any() for delta in start.deltas)
    module: Any = families.tiny("llama")[0]
    config = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["down_proj"], layers_to_transform=[0, 2])
    trained = peft.get_peft_model(module, config)
    layers = [module.model.layers[index].mlp.down_proj for index in (0, 2)]
    for layer, delta in zip(layers, start.deltas, strict=True):
        assert delta.right is not None
        assert float(layer.lora_A["default"].weight.detach().abs().max()) <= float(delta.right.shape[1]) ** -0.5
        layer.lora_A["default"].weight.data.copy_(delta.right)
    run = forced(model, FACT)
    ids, target = run.prompted.inputs["input_ids"], torch.tensor([run.output_ids])
    both = torch.cat([ids, target], 1)
    labels = torch.cat([torch.full_like(ids, -100), target], 1)
    optimizer = torch.optim.Adam([p for p in trained.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(4):
        optimizer.zero_grad()
        trained(input_ids=both, labels=labels).loss.backward()
        optimizer.step()
    edit = lora(model, FACT, steps=4, enough=0.0, **settings)
    for layer, delta in zip(layers, edit.deltas, strict=True):
        assert delta.left.any()
        assert delta.right is not None
        torch.testing.assert_close(delta.left @ delta.right, layer.get_delta_weight("default"), atol=1e-5, rtol=1e-3)


def test_dropout_leaves_inputs_out_and_is_seeded(model: Model) -> None:
    settings: dict[str, Any] = {"steps": 3, "enough": 0.0}
    plain, one, again, other = (
        lora(model, FACT, **settings, dropout=share, seed=seed)
        for share, seed in ((0, 1), (0.5, 1), (0.5, 1), (0.5, 2))
    )
    assert torch.equal(one.deltas[0].left, again.deltas[0].left)
    assert not torch.equal(one.deltas[0].left, other.deltas[0].left)
    assert not torch.equal(one.deltas[0].left, plain.deltas[0].left)


def test_presets_are_the_published_ones_and_bad_settings_are_said(model: Model) -> None:
    presets = {name: preset.settings for name, preset in EDITORS["lora"].presets.items()}
    assert {(presets[name].rank, presets[name].alpha, presets[name].dropout, presets[name].rate)
            for name in presets if name not in ("default", "small")} == {(8, 32.0, 0.1, 5e-3)}  # fmt: skip
    assert [presets[name].steps for name in ("gpt2-xl", "gptj", "llama-2", "qwen2")] == [30, 50, 70, 60]
    for changes, words in (({"rank": 0}, "rank"), ({"dropout": 1.0}, "dropout"), ({"layers": (7,)}, "Layer 7")):
        with pytest.raises(MethodError, match=words):
            lora(model, FACT, **changes)  # type: ignore[arg-type]
    with pytest.raises(NeuronwiseError, match="rate"):
        lora(model, FACT, rate=0.0)
