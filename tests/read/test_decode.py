"""Decoding against its formula, written here once more for norms of every kind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import neuronwise as nw
from conformed import tiny
from neuronwise.errors import MethodError, NeuronError
from neuronwise.model import Model
from neuronwise.model.direct_map import DirectMap
from neuronwise.model.later_layers import LaterLayers
from neuronwise.neurons import Neuron, ScoredNeuron
from neuronwise.read import decode_all
from neuronwise.read.decode import effects, merged, value_vectors

decoding = sys.modules["neuronwise.read.decode"]


def arrives(model: Model, vector: Tensor) -> Tensor:
    """What a vector written by a feed-forward block of layer 1 becomes before the output head, up to a factor."""
    core: Any = model.module
    layer: Any = model.blocks[1].module
    if model.name == "gpt2":
        return core.transformer.ln_f.weight * (vector - vector.mean())
    if model.name == "t5":
        return core.decoder.final_layer_norm.weight * vector
    if model.name == "gemma2":
        return (1 + core.model.norm.weight) * (1 + layer.post_feedforward_layernorm.weight) * vector
    if model.name == "olmo2":
        return core.model.norm.weight * layer.post_feedforward_layernorm.weight * vector
    return core.model.norm.weight * vector


FAMILIES = ["llama", "gpt2", "t5", "gemma2", "olmo2", "qwen2_moe", "mixtral"]


@pytest.mark.parametrize("name", FAMILIES)
def test_decode_is_the_extreme_of_the_cosine(name: str) -> None:
    model = tiny(name)[0]
    writer = model.blocks[1].writers[-1]
    neuron = writer.neuron(7)
    with torch.no_grad():
        arrived = arrives(model, writer.vectors[:, 7].float())
        centered = model.unembedding.float() - model.unembedding.float().mean(0)
        cosine = functional.cosine_similarity(centered, arrived[None], dim=1)
    expected = [model.tokenizer.decode([int(token)]) for token in cosine.argsort(descending=True)]
    assert DirectMap(model).rows  # the way was traced, not taken for the final norm's
    assert nw.decode(model, neuron, k=6) == expected[:6]
    assert nw.decode(model, neuron, k=6, bottom=True) == expected[::-1][:6]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_direct_map_is_what_the_share_of_the_logit_is_made_of(name: str) -> None:
    """⟨U_t, what arrives⟩ is proportional, over neurons, to the exact share of one unit of activation."""
    model, prompted, _ = tiny(name)
    run = nw.Run.of(model, prompted)
    writer = model.blocks[1].writers[-1]
    scores = nw.scores(model, run, target=29, normalize=True)
    if writer not in scores:  # an expert that the token was not routed to
        writer = next(one for one in scores if one.layer == 1)
    shares = scores[writer] / scores.activations[writer]
    arrived = value_vectors(model, writer.neurons, DirectMap(model))
    read = arrived @ model.unembedding[29].detach().float()
    known = scores.activations[writer].abs() > 1e-3
    assert float(functional.cosine_similarity(shares[known], read[known], dim=0)) > 0.999


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "olmo2", "falcon", "mixtral", "qwen3_moe", "t5"])
def test_through_later_layers_it_is_a_mean_of_finite_differences(name: str) -> None:
    model = tiny(name, torch.float64)[0]
    texts = ["w5 w9 w11", "w30 w7 w8 w12"]
    writer = next(one for one in model.writers if one.layer == 1)
    neurons = [writer.neuron(unit) for unit in (3, 7, 11)]
    block = model.blocks[1].module
    site = block.get_submodule(writer.site[1])
    given: list[Tensor] = []
    handles = [model.head.register_forward_pre_hook(lambda m, args: given.append(args[0][0, -1].detach()))]
    step, expected = 1e-2, []  # norms and softmax are taken in float32
    for neuron in neurons:
        vector, moved = model.blocks[1].value_vector(neuron).detach(), []
        for text in texts:
            inputs = model.extend(model.prepare(None, text, chat=False)[0].inputs, [])
            ends = []
            for size in (step, -step):

                def add(module: Any, args: Any, out: Any, size: float = size, vector: Tensor = vector) -> Any:
                    first = (out if isinstance(out, Tensor) else out[0]).clone()
                    first.view(-1, first.shape[-1])[-1] += size * vector
                    return first if isinstance(out, Tensor) else (first, *out[1:])

                handle = site.register_forward_hook(add)
                with torch.no_grad():
                    model.forward(inputs)
                handle.remove()
                ends.append(given[-1])
            moved.append((ends[0] - ends[1]) / (2 * step))
        expected.append(torch.stack(moved).mean(0))
    for handle in handles:
        handle.remove()
    cases = [model.extend(model.prepare(None, text, chat=False)[0].inputs, []) for text in texts]
    found = value_vectors(model, neurons, LaterLayers(model, cases))
    by_hand = torch.stack(expected).float()
    assert float((found - by_hand).norm() / by_hand.norm()) < 5e-3
    direct = value_vectors(model, neurons, DirectMap(model))
    assert functional.cosine_similarity(found, direct.to(found), dim=1).max() < 0.999
    centered = model.unembedding.float() - model.unembedding.float().mean(0)
    best = int(functional.cosine_similarity(centered, expected[1][None].float(), dim=1).argmax())
    assert nw.decode(model, neurons[1], k=1, through="later layers", over=texts) == [f"w{best}"]


def test_behind_the_last_layer_there_is_the_final_norm_alone(tiny_model: Any) -> None:
    """Whose scale moves too: y = g ⊙ (v − h ⟨h, v⟩ / (d · rms²)) / rms."""
    run = tiny_model.run(prompt="a dog sits", max_new_tokens=0, chat=False)
    norm = tiny_model.module.model.norm
    kept: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, args: kept.append(args[0][0, -1]))
    tiny_model.forward(run.forced_inputs())
    handle.remove()
    h, v = kept[0].detach(), tiny_model.blocks[2].value_vectors[:, 7].detach()
    square = h.square().mean() + norm.variance_epsilon
    arrived = norm.weight.detach() * (v - h * (h @ v) / (len(h) * square)) / square.sqrt()
    centered = tiny_model.unembedding - tiny_model.unembedding.mean(0)
    order = functional.cosine_similarity(centered, arrived[None], dim=1).argsort(descending=True).tolist()
    expected = [tiny_model.tokenizer.decode([token]) for token in order[:8]]
    for over in (["a dog sits"], [run]):
        assert nw.decode(tiny_model, "L2.U7", k=8, through="later layers", over=over) == expected


def test_a_run_counts_where_it_predicted_each_token(tiny_model: Any) -> None:
    run = tiny_model.run(prompt="a dog sits", max_new_tokens=2, chat=False)
    cut = [run.forced_inputs(0), run.forced_inputs(1)]
    by_hand = value_vectors(tiny_model, [Neuron(0, 3)], LaterLayers(tiny_model, cut))
    centered = tiny_model.unembedding - tiny_model.unembedding.mean(0)
    best = int(functional.cosine_similarity(centered, by_hand, dim=1).argmax())
    found = nw.decode(tiny_model, "L0.U3", k=1, through="later layers", over=[run])
    assert found == [tiny_model.tokenizer.decode([best])]
    assert len(nw.decode(tiny_model, "L0.U3", k=5, through="later layers")) == 5


@pytest.mark.parametrize("bottom", [False, True])
def test_the_published_form_is_the_extreme_of_the_product(tiny_model: Any, bottom: bool) -> None:
    vector = tiny_model.module.model.layers[1].mlp.down_proj.weight[:, 7].detach()
    logits = tiny_model.module.lm_head.weight.detach() @ vector
    expected = logits.argsort(descending=not bottom)[:6].tolist()
    tokens = nw.decode(tiny_model, "L1.U7", k=6, bottom=bottom, form="logits")
    assert tokens == [tiny_model.tokenizer.decode([token]) for token in expected]


def test_a_neuron_below_its_baseline_raises_what_its_vector_lowers(tiny_model: Any) -> None:
    alone = effects(tiny_model, ["L1.U7"])[0]
    cases = [(2.0, None, 1), (-2.0, None, -1), (0.0, None, 1), (2.0, 3.0, -1), (-2.0, -3.0, 1), (None, None, 1)]
    for activation, baseline, sign in cases:
        member = ScoredNeuron(Neuron(1, 7), 0.5, activation, baseline=baseline)
        assert member.sign == sign
        here = effects(tiny_model, [member])[0]
        assert (here.raises, here.lowers) == (
            (alone.raises, alone.lowers) if sign > 0 else (alone.lowers, alone.raises)
        )
        assert nw.decode(tiny_model, member) == here.raises
        assert nw.decode(tiny_model, member, form="logits") == nw.decode(tiny_model, "L1.U7", form="logits")


def test_many_are_decoded_as_each_alone(tiny_model: Any) -> None:
    neurons = ["L0.U1", "L2.U40", "L0.U1", "L1.U3"]
    assert decode_all(tiny_model, neurons) == [nw.decode(tiny_model, neuron) for neuron in neurons]
    assert decode_all(tiny_model, []) == []


def test_what_was_decoded_is_kept_while_the_weights_are_as_they_are(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "REMEMBERED", 3)
    asked: list[str] = []
    fresh = decoding.value_vectors

    def counted(model: Model, neurons: Sequence[Neuron], arriving: Any = None) -> Tensor:
        asked.extend(map(str, neurons))
        return fresh(model, neurons, arriving)

    monkeypatch.setattr(decoding, "value_vectors", counted)
    first = decode_all(model, ["L0.U1", "L1.U3"])
    assert decode_all(model, ["L1.U3", "L0.U2", "L0.U1"]) == [first[1], *decode_all(model, ["L0.U2"]), first[0]]
    assert asked == ["L0.U1", "L1.U3", "L0.U2"]
    decode_all(model, ["L0.U4", "L0.U5"])
    decode_all(model, ["L0.U1"])  # longest ago
    assert asked[3:] == ["L0.U4", "L0.U5", "L0.U1"]
    for change in (lambda: model.blocks[0].value_vectors, lambda: model.unembedding):
        before = decode_all(model, ["L0.U1"])
        with torch.no_grad():
            change().copy_(torch.randn_like(change()))
        assert decode_all(model, ["L0.U1"]) != before
    assert decode_all(model, ["L0.U1"]) == decode_all(Model(model.module, model.tokenizer), ["L0.U1"])


def test_people_see_tokens_once() -> None:
    tokens = [" dog", "Dog", "dogs", "\ufffd", "DOG ", "<0xE2>", " ", "\n", "\ufffd\ufffd"]
    assert merged(tokens) == [" dog", "dogs", "\ufffd", " "]


def test_what_cannot_be_read(tiny_model: Any) -> None:
    with pytest.raises(MethodError, match="ask for 1 to"):
        nw.decode(tiny_model, "L0.U1", k=10**6)
    with pytest.raises(MethodError, match="choose cosine or logits"):
        nw.decode(tiny_model, "L0.U1", form="sine")
    with pytest.raises(MethodError, match="choose 'direct path' or 'later layers'"):
        nw.decode(tiny_model, "L0.U1", through="walls")
    with pytest.raises(MethodError, match="leave out through"):
        nw.decode(tiny_model, "L0.U1", through="later layers", form="logits")
    for over, through in ((["a dog"], "direct path"), ([], "later layers")):
        with pytest.raises(MethodError, match="one or more, for through="):
            nw.decode(tiny_model, "L0.U1", through=through, over=over)
    with pytest.raises(NeuronError, match=r"L0\.U99999"):
        nw.decode(tiny_model, "L0.U99999")
