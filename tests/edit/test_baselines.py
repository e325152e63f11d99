"""Knowledge neurons and fine-tuning against their formulas, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import families
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit import fine_tune, knowledge_neurons
from neuronwise.edit.fine_tune import PRESETS
from neuronwise.errors import MethodError, PromptError
from neuronwise.locate import locate
from neuronwise.model.model import Model

FACT = Fact("the capital of {} is", "France", "house")


@pytest.fixture
def model(tiny_tokenizer: Any) -> Model:
    return Model(families.tiny("llama")[0], tiny_tokenizer, name="llama")


def present(model: Model) -> int:
    with torch.no_grad():
        return int(model.forward(forced(model, FACT).forced_inputs(0), rows=[-1])[0, -1].argmax())


def test_value_vectors_move_from_the_old_answer_to_the_new(model: Model) -> None:
    old, (new,) = present(model), forced(model, FACT).output_ids
    edit = knowledge_neurons(model, FACT, steps=4, lambda_old=0.5, lambda_new=3.0)
    run = model.run(prompt=FACT.text, max_new_tokens=0, chat=False)
    scored = locate(model, run, target=old, method="integrated_gradients", steps=4, top=5)
    expected = {m.neuron for m in scored if m.score >= 0.2 * scored[0].score}
    embeddings = model.unembedding.detach()
    units = {(delta.layer, int(unit)): delta.left[:, j] for delta in edit.deltas for j, unit in enumerate(delta.units)}  # type: ignore[arg-type]
    assert set(units) == {(neuron.layer, neuron.unit) for neuron in expected}
    for (layer, unit), moved in units.items():
        norm = model.blocks[layer].value_vectors[:, unit].norm()
        wanted = (
            3.0 * norm * embeddings[new] / embeddings[new].norm()
            - 0.5 * norm * embeddings[old] / embeddings[old].norm()
        )
        assert torch.allclose(moved, wanted, atol=1e-5)


def test_erased_value_vectors_are_zero(model: Model) -> None:
    edit = knowledge_neurons(model, FACT, mode="erase", steps=2)
    with edit.applied(model):
        for delta in edit.deltas:
            assert delta.units is not None
            assert not model.blocks[delta.layer].value_vectors[:, delta.units].any()


def test_negative_activations_turn_the_change_around_when_asked(model: Model) -> None:
    plain, signed = (knowledge_neurons(model, FACT, steps=2, at_most=30, signed=flag) for flag in (False, True))
    turned = 0
    run = model.run(prompt=FACT.text, max_new_tokens=0, chat=False)
    acts = run.activations(0)
    for one, other in zip(plain.deltas, signed.deltas, strict=True):
        for j, unit in enumerate(one.units):  # type: ignore[arg-type]
            negative = float(acts.dense[one.layer][0, int(unit)]) < 0
            turned += negative
            assert torch.equal(other.left[:, j], -one.left[:, j] if negative else one.left[:, j])
    assert turned > 0


def test_paraphrases_keep_the_neurons_they_share(model: Model) -> None:
    edit = knowledge_neurons(model, FACT, steps=2, paraphrases=("{} has the capital", "in {} is the capital"))
    assert edit.record["neurons"]
    with pytest.raises(PromptError, match="paraphrase"):
        knowledge_neurons(model, FACT, paraphrases=("the capital",))
    with pytest.raises(MethodError, match="update or erase"):
        knowledge_neurons(model, FACT, mode="magic")


@pytest.mark.parametrize("mode", ["L", "M"])
def test_fine_tuning_is_adam_on_the_weight_itself(model: Model, mode: str) -> None:
    fact = Fact("the capital of {} is", "France", "cat house")
    edit = fine_tune(model, fact, mode=mode, layer=1, steps=3, rate=1e-2, norm_constraint=5e-3, enough=0.0)
    module: Any = families.tiny("llama")[0]
    weight: Any = module.get_submodule("model.layers.1.mlp.down_proj").weight
    module.requires_grad_(False)
    weight.requires_grad_(True)
    before = weight.detach().clone()
    optimizer = torch.optim.Adam([weight], lr=1e-2)
    run = forced(model, fact)
    ids = run.prompted.inputs["input_ids"]
    target = torch.tensor(run.output_ids)
    assert len(target) == 2
    for _ in range(3):
        optimizer.zero_grad()
        if mode == "L":
            said = module(ids).logits[0, -1].log_softmax(-1)[target]
        else:
            logits = module(torch.cat([ids, target.unsqueeze(0)], 1)).logits[0]
            said = logits[ids.shape[1] - 1 : -1].log_softmax(-1).gather(1, target.unsqueeze(1))
        (-said.mean()).backward()
        optimizer.step()
        with torch.no_grad():
            weight.copy_(before + (weight - before).clamp(-5e-3, 5e-3))
    whole = torch.zeros_like(before)
    (delta,) = edit.deltas
    whole[:, delta.units] = delta.left
    assert torch.allclose(whole, weight.detach() - before, atol=2e-5)
    assert float(whole.abs().max()) <= 5e-3 + 1e-6


def test_several_facts_are_the_mean_of_their_losses(model: Model) -> None:
    settings: dict[str, Any] = {"layer": 1, "steps": 2, "rate": 1e-2, "norm_constraint": None}
    once = fine_tune(model, FACT, **settings)
    twice = fine_tune(model, [FACT, FACT], **settings)
    assert torch.allclose(once.deltas[0].left, twice.deltas[0].left, atol=1e-5)


def test_presets_are_the_published_ones(model: Model) -> None:
    presets = {name: preset.settings for name, preset in PRESETS.items()}
    assert (presets["gpt2-xl"].layer, presets["gpt2-xl"].norm_constraint) == (0, 5e-4)
    assert [presets[name].layer for name in ("gptj", "llama-2", "mistral")] == [21, 21, 21]
    assert presets["gptj"].norm_constraint is None
    for layer, words in ((7, "layers that have one: 0 to 2"), (-1, "give a number from 0")):
        with pytest.raises(MethodError, match=words):
            fine_tune(model, FACT, layer=layer)
