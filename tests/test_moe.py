"""Routed experts end to end: shares, suppression, edits and adapters, against each module's own arithmetic."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

import families
import neuronwise as nw
from edits import random_edit, same, weights
from neuronwise import intervene
from neuronwise.data.facts import Fact
from neuronwise.edit import Delta, Edit, fine, load_edit, suppress_neurons
from neuronwise.edit.fine.change import Change, Shown
from neuronwise.edit.fine.request import Request
from neuronwise.errors import EditError, ModelError
from neuronwise.locate import Scores, score_all
from neuronwise.model import Model, Run, Target
from neuronwise.model.hooks import Hooks
from neuronwise.model.products import ChangedProducts
from neuronwise.model.prompt import Prompted
from neuronwise.neurons import Neuron, NeuronSet

# family: the stack of layers, the path of the experts' output parameter in a layer, whether it is (E, f, d)
WHERE = {
    "mixtral": ("model.layers", "mlp.experts.down_proj", False),
    "qwen3_moe": ("model.layers", "mlp.experts.down_proj", False),
    "qwen3_vl_moe": ("model.language_model.layers", "mlp.experts.down_proj", False),
    "deepseek_v3": ("model.layers", "mlp.experts.down_proj", False),
    "llama4_text": ("model.layers", "feed_forward.experts.down_proj", True),
    "gpt_oss": ("model.layers", "mlp.experts.down_proj", True),
    "gpt_oss_square": ("model.layers", "mlp.experts.down_proj", True),
    "jetmoe": ("model.layers", "mlp.output_linear.weight", False),
}
LAYER = 1
TARGET = Target(29, 0, "t")
FACT = Fact("the capital of {} is", "France", "house")


def made(name: str, tokenizer: Any = None) -> tuple[Model, dict[str, Any]]:
    module, inputs = families.tiny(name)
    return Model(module, tokenizer, name=name), inputs


def run_of(model: Model, inputs: dict[str, Any], image: Any = None) -> Run:
    return Run(model, Prompted("", False, inputs), [], [], image)


def logits(model: Model, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model.module(**inputs, use_cache=False).logits[0]


def column(model: Model, name: str, neuron: Neuron) -> Tensor:
    """The value vector's own numbers, found by the architecture's names for them."""
    stack, path, transposed = WHERE[name]
    parameter = model.module.get_parameter(f"{stack}.{neuron.layer}.{path}").data
    return parameter[neuron.expert, neuron.unit] if transposed else parameter[neuron.expert, :, neuron.unit]


@contextlib.contextmanager
def zeroed(model: Model, name: str, neurons: list[Neuron]) -> Iterator[None]:
    kept = [column(model, name, neuron).clone() for neuron in neurons]
    for neuron in neurons:
        column(model, name, neuron).zero_()
    yield
    for neuron, value in zip(neurons, kept, strict=True):
        column(model, name, neuron).copy_(value)


def strongest(model: Model, run: Run, count: int = 6) -> list[Neuron]:
    scores = score_all(model, run, [TARGET], "contribution")[0]
    routed = Scores({writer: v.abs() for writer, v in scores.items() if writer.expert is not None})
    return list(routed.top(count).neurons)


# What each architecture computes for one row x (d,) of layer LAYER, from its own formula: expert → (weight, a).


def softmax_first(block: Any, x: Tensor) -> dict[int, tuple[float, Tensor]]:
    best = (block.gate.weight @ x).softmax(-1).topk(2)
    shares = best.values / best.values.sum()
    return {e: (s, gated(block, e, x)) for s, e in zip(shares.tolist(), best.indices.tolist(), strict=True)}


def deepseek(block: Any, x: Tensor) -> dict[int, tuple[float, Tensor]]:
    """Sigmoid chances; a correction and the best group decide who is chosen, the chances alone how much."""
    chances = (block.gate.weight.float() @ x).sigmoid()
    choice = chances + block.gate.e_score_correction_bias
    groups = choice.reshape(2, 2)
    best_group = int(groups.topk(2, dim=-1).values.sum(-1).argmax())
    chosen = [2 * best_group, 2 * best_group + 1]
    total = sum(float(chances[e]) for e in chosen) + 1e-20
    scale = block.routed_scaling_factor if hasattr(block, "routed_scaling_factor") else block.gate.routed_scaling_factor
    return {e: (float(chances[e]) / total * scale, gated(block, e, x)) for e in chosen}


def llama4(block: Any, x: Tensor) -> dict[int, tuple[float, Tensor]]:
    """The router's weight multiplies what an expert reads, not what it writes."""
    read = block.router.weight @ x
    expert = int(read.argmax())
    gate, up = ((x * read[expert].sigmoid()) @ block.experts.gate_up_proj[expert]).chunk(2)
    return {expert: (1.0, up * functional.silu(gate))}


def gpt_oss(block: Any, x: Tensor) -> dict[int, tuple[float, Tensor]]:
    best = (block.router.weight @ x + block.router.bias).topk(2)
    found = {}
    for share, expert in zip(best.values.softmax(-1).tolist(), best.indices.tolist(), strict=True):
        both = x @ block.experts.gate_up_proj[expert] + block.experts.gate_up_proj_bias[expert]
        gate, up = both[::2].clamp(max=7.0), both[1::2].clamp(-7.0, 7.0)
        found[expert] = (share, (up + 1) * gate * torch.sigmoid(1.702 * gate))
    return found


def gated(block: Any, expert: int, x: Tensor) -> Tensor:
    gate, up = (block.experts.gate_up_proj[expert] @ x).chunk(2)
    return functional.silu(gate) * up


FORMULAS: dict[str, Callable[[Any, Tensor], dict[int, tuple[float, Tensor]]]] = {
    "mixtral": softmax_first, "qwen3_moe": softmax_first, "qwen3_vl_moe": softmax_first, "deepseek_v3": deepseek,
    "llama4_text": llama4, "gpt_oss": gpt_oss,
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_router_weights_and_contributions_are_the_architectures_own(name: str) -> None:
    model, inputs = made(name)
    block: Any = model.module.get_submodule(f"{WHERE[name][0]}.{LAYER}.{WHERE[name][1].partition('.')[0]}")
    if name == "gpt_oss":  # so large that both clamps are at work
        block.experts.gate_up_proj.data *= 12
    seen: list[Tensor] = []
    with Hooks() as hooks:
        hooks.before(block, lambda m, args, kwargs: seen.append(args[0].detach().reshape(-1, model.hidden_size)))
        record = model.record(inputs, rows=[-1]).routed[LAYER][0]
    with torch.no_grad():
        expected = FORMULAS[name](block, seen[0][-1])
    scores = score_all(model, run_of(model, inputs), [TARGET], "contribution")[0]
    assert set(record) == set(expected) == {w.expert for w in scores if w.layer == LAYER and w.expert is not None}
    parameter = model.module.get_parameter(f"{WHERE[name][0]}.{LAYER}.{WHERE[name][1]}").detach()
    for expert, (weight, a) in expected.items():
        vectors = parameter[expert].T if WHERE[name][2] else parameter[expert]
        read = model.module.lm_head.weight[29].detach() @ vectors
        torch.testing.assert_close(scores.layer(LAYER, expert), weight * a * read, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(record[expert].activation, a, rtol=1e-4, atol=1e-5)
        assert record[expert].weight == pytest.approx(weight, rel=1e-4)
        torch.testing.assert_close(record[expert].written, weight * a, rtol=1e-3, atol=1e-5)
        if name == "gpt_oss":
            assert (a.abs() > 40).any()  # (7 + 1) · 7: a clamp cut it


@pytest.mark.parametrize("name", WHERE)
def test_suppressing_equals_zeroing_by_hand(name: str, tmp_path: Path) -> None:
    model, inputs = made(name)
    before, state = logits(model, inputs), weights(model)
    neurons = strongest(model, run_of(model, inputs))
    with zeroed(model, name, neurons):
        by_hand = logits(model, inputs)
    assert same(state, weights(model))
    assert not torch.allclose(by_hand, before, atol=1e-4)
    with intervene.suppress(model, neurons):
        torch.testing.assert_close(logits(model, inputs), by_hand)
    edit = suppress_neurons(model, NeuronSet.of(neurons))
    edit.save(tmp_path / "edit")
    for one in (edit, load_edit(tmp_path / "edit")):
        with one.applied(model):
            torch.testing.assert_close(logits(model, inputs), by_hand, rtol=1e-4, atol=1e-4)
            assert all(not column(model, name, n).any() for n in neurons)
    assert same(state, weights(model))
    assert torch.equal(logits(model, inputs), before)


@pytest.mark.parametrize("name", [name for name in WHERE if name != "llama4_text"])  # its last layer is dense
def test_the_shares_of_a_layers_neurons_are_what_their_zeroing_takes(name: str) -> None:
    """In the last layer nothing reads what they wrote but the final norm, which is held: shares are exact there."""
    model, inputs = made(name)
    run = run_of(model, inputs)
    last = model.num_layers - 1
    scores = score_all(model, run, [TARGET], "contribution", normalize=True)[0]
    acts = run.activations(0).routed[last][0]
    norms: list[Tensor] = []
    final = model.module.get_submodule(WHERE[name][0].rpartition(".")[0]).norm
    with Hooks() as hooks:
        hooks.before(final, lambda m, args, kwargs: norms.append(args[0].detach()[0, -1].clone()))
        logits(model, inputs)
        neurons = [Neuron(last, int(record.activation.abs().argmax()), e) for e, record in acts.items()]
        with zeroed(model, name, neurons):
            logits(model, inputs)
    before, after = norms
    scale = (before.pow(2).mean() + model.config.get_text_config().rms_norm_eps).rsqrt()
    difference = (before - after) * scale * final.weight.detach()
    expected = float(model.module.lm_head.weight[29].detach() @ difference)
    assert sum(scores.of(n) for n in neurons) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", WHERE)
def test_edits_come_out_to_the_bit_and_as_adapters(name: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model, inputs = made(name)
    state, before = weights(model), logits(model, inputs)
    edit = random_edit(model) + random_edit(model, 3, neurons=2, low_rank=True)
    with edit.applied(model):
        edited = logits(model, inputs)
    assert same(state, weights(model))
    assert not torch.allclose(edited, before, atol=1e-3)
    edit.to_peft(model, tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(copy.deepcopy(model.module), str(tmp_path / "adapter"))
    with torch.no_grad():
        torch.testing.assert_close(adapted(**inputs, use_cache=False).logits[0], edited, rtol=1e-4, atol=1e-4)
    merged = adapted.merge_and_unload()
    with torch.no_grad():
        torch.testing.assert_close(merged(**inputs, use_cache=False).logits[0], edited, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "deepseek_v3", "qwen3_vl_moe", "llama4_text"])
def test_a_merged_checkpoint_is_the_edited_model(name: str, tmp_path: Path) -> None:
    import transformers

    model, inputs = made(name)
    edit = random_edit(model)
    edit.merge(model, tmp_path / "merged")
    auto = transformers.AutoModelForImageTextToText if "vl" in name else transformers.AutoModelForCausalLM
    loaded = auto.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    with edit.applied(model), torch.no_grad():
        expected = logits(model, inputs)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs, use_cache=False).logits[0], expected, rtol=1e-4, atol=1e-4)


def test_experts_that_peft_does_not_address_are_refused_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model, _ = made("dbrx")
    with pytest.raises(EditError, match="peft does not address"):
        random_edit(model).to_peft(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("name", [*WHERE, "dbrx", "granitemoe", "switch_transformers"])
def test_what_is_learned_in_a_pass_is_what_the_edit_writes(name: str) -> None:
    """The Δ that ``fine`` learns beside the experts gives the logits of the edited weights, and their gradients."""
    model, inputs = made(name)
    run = run_of(model, inputs)
    if model.is_encoder_decoder:
        run = Run(model, Prompted("", False, inputs), [5, 6], [])
    full = run.forced_inputs()
    before, state = model.forward(full).detach(), weights(model)
    change = Change(model, Request(FACT, run), strongest(model, run))
    assert change.routed
    with torch.no_grad():
        change.values.copy_(0.3 * torch.randn(change.values.shape, generator=torch.Generator().manual_seed(0)))

    def loss(values: Tensor) -> Tensor:
        shown.values = [values]
        return model.forward(full)[0, -1, 29]

    shown = Shown()
    with shown.among([change]):
        shown.of, shown.values = [change], [change.values]
        passed = model.forward(full)
        passed[0, -1, 29].backward()
        assert change.values.grad is not None
        step = 3e-3 * torch.randn(change.values.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            slope = (loss(change.values + step) - loss(change.values - step)) / 2
    assert float((change.values.grad * step).sum()) == pytest.approx(float(slope), rel=2e-2, abs=1e-4)
    assert torch.equal(model.forward(full), before)
    with Edit(change.deltas).applied(model):
        torch.testing.assert_close(model.forward(full), passed, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(passed, before, atol=1e-3)
    assert same(state, weights(model))


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "deepseek_v3", "llama4_text", "gpt_oss"])
def test_fine_edits_experts(name: str, tiny_tokenizer: Any) -> None:
    model, _ = made(name, tiny_tokenizer)
    state = weights(model)
    flags = [p.requires_grad for p in model.module.parameters()]
    implementation = model.config._experts_implementation
    facts = [FACT, Fact("{} sits on the", "cat", "red")]
    quick: dict[str, Any] = {"freeze_last": 0, "rate": 0.1, "n": 8, "alpha": 0.0, "beta": 0.0, "gamma": 0.0}
    edit = fine(model, facts, steps=2, together=2, **quick)
    assert any(delta.expert is not None for delta in edit.deltas)
    assert same(state, weights(model))
    assert [p.requires_grad for p in model.module.parameters()] == flags
    assert model.config._experts_implementation == implementation
    assert not any("forward" in part.__dict__ for part in model.module.modules())
    few = fine(model, FACT, steps=2, **quick)
    count = len(few.deltas)  # in a list each fact is learned by itself
    torch.testing.assert_close([d.left for d in edit.deltas[:count]], [d.left for d in few.deltas])
    alone = fine(model, FACT, steps=40, enough=0.5, **quick)
    assert min(alone.record["probabilities"]) >= 0.5
    with alone.applied(model):
        said = model.run(prompt=FACT.text, max_new_tokens=1, chat=False)
    assert said.output_ids == [tiny_tokenizer.convert_tokens_to_ids("▁house")]
    assert same(state, weights(model))


def test_an_interrupted_pass_leaves_the_experts_as_they_were() -> None:
    model, inputs = made("mixtral")
    before = logits(model, inputs)
    routed = model.blocks[1].experts[0]

    def product(expert: int, read: Tensor, written: Tensor) -> Tensor:
        raise KeyError("on purpose")

    with pytest.raises(KeyError, match="on purpose"), Hooks() as hooks:
        hooks.hold(ChangedProducts(routed, product))
        logits(model, inputs)
    assert torch.equal(logits(model, inputs), before)
    assert "forward" not in routed.module.__dict__


def test_offloaded_experts_are_not_silently_left_alone() -> None:
    model, _ = made("mixtral")
    routed: Any = model.blocks[1].experts[0]
    routed.module.down_proj = torch.nn.Parameter(routed.module.down_proj.data.to("meta"))
    with pytest.raises(ModelError, match="offloaded or quantized"), intervene.suppress(model, ["L1.E0.U2"]):
        pass


def test_heat_of_an_experts_neuron_is_what_it_writes() -> None:
    """Weighted by the router, 0 where a patch was sent to other experts."""
    model, inputs = made("qwen3_vl_moe")
    run = run_of(model, inputs, Image.new("RGB", (16, 16)))
    block = model.module.model.language_model.layers[LAYER].mlp
    seen: list[Tensor] = []
    with Hooks() as hooks:
        hooks.before(block, lambda m, args, kwargs: seen.append(args[0].detach().reshape(-1, model.hidden_size)))
        logits(model, inputs)
    with torch.no_grad():
        rows = [softmax_first(block, seen[0][p]) for p in run.image_positions.tolist()]
    for expert in range(4):
        expected = torch.tensor([float(r[expert][0] * r[expert][1][3]) if expert in r else 0.0 for r in rows])
        heat = nw.heatmap(model, run, [f"L{LAYER}.E{expert}.U3"])
        torch.testing.assert_close(torch.tensor(heat.grid).flatten(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", ["contribution", "gradient_activation", "log_prob_increase", "activation"])
def test_found_activations_are_what_multiplies_the_value_vectors(method: str) -> None:
    model, inputs = made("mixtral")
    run = run_of(model, inputs)
    options = {"positions": "predicting"} if "gradient" in method else {}
    found = score_all(model, run, [TARGET], method, **options)[0].top(20)
    for member in found:
        record = run.activations(0).routed[member.neuron.layer][0][member.neuron.expert or 0]
        expected = record.weight * float(record.activation[member.neuron.unit])
        assert member.activation == pytest.approx(expected, rel=1e-4)


def test_decoding_reads_the_experts_own_value_vector(tiny_tokenizer: Any) -> None:
    for name in ("mixtral", "gpt_oss"):
        model, _ = made(name, tiny_tokenizer)
        neuron = Neuron(LAYER, 5, 2)
        read = model.module.lm_head.weight.detach() @ column(model, name, neuron)
        best = read.topk(3).indices.tolist()
        assert nw.decode(model, neuron, 3, form="logits") == [tiny_tokenizer.decode([token]) for token in best]


def test_an_edit_of_an_expert_that_is_not_there_is_refused() -> None:
    model, _ = made("mixtral")
    edit = Edit((Delta(1, "mlp.experts", torch.zeros(32, 1), torch.tensor([0]), expert=9),))
    with pytest.raises(EditError, match="no expert 9"):
        edit.apply(model)


def test_packed_experts_are_refused_in_a_sentence() -> None:
    """Of gpt-oss in MXFP4 the scales have an expert's dimensions: they are not to be taken for its weights."""
    from transformers.integrations.mxfp4 import Mxfp4GptOssExperts

    module: Any = families.tiny("gpt_oss_square")[0]
    for layer in module.model.layers:
        layer.mlp.experts = Mxfp4GptOssExperts(module.config)
    with pytest.raises(ModelError, match=r"packed in MXFP4.*dequantize=True"):
        Model(module)
