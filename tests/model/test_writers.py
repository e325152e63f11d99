"""Writers: every neuron belongs to one, whatever the layout; adapters, quantization and compilation around them."""

from __future__ import annotations

import dataclasses
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from families import tiny
from neuronwise.errors import ModelError, NeuronError
from neuronwise.locate.shares import direct_shares
from neuronwise.model import Block, Model, Run
from neuronwise.model.check import require_sums
from neuronwise.model.prompt import Prompted
from neuronwise.neurons import Neuron

FAMILIES = ("llama", "gpt2", "mixtral", "gpt_oss", "qwen2_moe", "deepseek_v3", "gemma2", "llama_shared", "dbrx")


@pytest.fixture(params=FAMILIES)
def run(request: pytest.FixtureRequest) -> Run:
    module, inputs = tiny(request.param)
    return Run.of(Model(module), Prompted("", False, inputs), [17])


def test_writers_hold_every_neuron_once_in_order(run: Run) -> None:
    model = run.model
    neurons = [neuron for writer in model.writers for neuron in writer.neurons]
    assert len(set(neurons)) == len(neurons) == model.num_neurons
    assert neurons == sorted(neurons)
    for writer in model.writers:
        last = writer.neurons[-1]
        assert model.writer(last) == writer
        assert writer.columns([last]).tolist() == [writer.width - 1]
        assert torch.equal(writer.vectors[:, -1], model.blocks[last.layer].value_vector(last))
    with pytest.raises(NeuronError, match=r"no neuron L0\.U9999"):
        model.writer(Neuron(0, 9999))
    with pytest.raises(NeuronError, match="is not a neuron of"):
        model.writers[-1].columns([Neuron(0, 9999)])


def test_own_weights_are_the_vectors_themselves(run: Run) -> None:
    for writer in run.model.writers:
        assert writer.editable
        writer.own_weight[:, 0] = 7.0
        assert torch.equal(writer.vectors[:, 0], torch.full((writer.hidden_size,), 7.0))


def test_all_writers_together_write_what_the_layers_write(run: Run) -> None:
    """At several rows at once and row by row."""
    model, rows = run.model, [-2, -1]
    acts = run.rows(rows)
    for writer in model.writers:
        seen = writer.fired_rows(acts)
        assert len(seen.rows) == len(seen.values) == len(seen.weights)
        for row in range(len(rows)):
            fired = writer.fired(acts, row)
            assert (fired is None) == (row not in seen.rows)
            if fired is not None:
                assert torch.equal(fired, seen.values[seen.rows.index(row)])
        assert torch.allclose(
            writer.project(torch.ones(1, writer.hidden_size))[0], writer.vectors.float().sum(0), atol=1e-5
        )
    used = {writer.layer for writer in model.writers if writer.fired(acts) is not None}
    assert used == {block.layer for block in model.blocks}


def test_weights_out_of_memory_are_refused_by_their_writer() -> None:
    module, _ = tiny("llama")
    model = Model(module)
    module.get_submodule("model.layers.1.mlp.down_proj").to("meta")
    with pytest.raises(ModelError, match=r"L1\.mlp\.down_proj are offloaded or quantized"):
        _ = model.writers[1].own_weight


# Modules around a writer. Each of them is one writer, or is refused.

TARGETS = ["down_proj", "gate_proj", "up_proj"]


def adapted(family: str, config: Any) -> tuple[Any, dict[str, Tensor]]:
    """A tiny model under an adapter whose numbers are drawn, so that it acts."""
    module, inputs = tiny(family)
    module = peft.get_peft_model(module, config)
    for name, parameter in module.named_parameters():
        if any(mark in name for mark in ("lora_", "ia3_", "hada_", "vera_")):
            torch.nn.init.normal_(parameter, std=0.1)
    return module.eval(), inputs


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS)),
        ("llama_bias", peft.LoraConfig(r=4, target_modules=TARGETS, lora_bias=True)),
        ("gpt2", peft.LoraConfig(r=4, target_modules=["c_fc", "c_proj"], fan_in_fan_out=True)),
    ],
)
def test_a_writer_under_lora_is_one_writer_as_it_acts(family: str, config: Any) -> None:
    module, inputs = adapted(family, config)
    model = Model(module)
    plain = Model(tiny(family)[0])
    assert [str(writer) for writer in model.writers] == [str(writer) for writer in plain.writers]
    run = Run.of(model, Prompted("", False, inputs), [17])
    shares = direct_shares(model, run, [(1, {29: 1.0})])
    neurons = sum(
        float((writer.fired(run.activations(1)) * writer.project(shares.gradients[0][writer.site][None])[0]).sum())  # type: ignore[operator]
        for writer in model.writers
    )
    biases = sum(float(shares.gradients[0][w.site] @ w.bias.float()) for w in model.writers if w.bias is not None)
    written = sum(shares.shares[0][writer.site] for writer in model.writers)
    assert neurons + biases == pytest.approx(written, abs=1e-4)
    before = [writer.vectors.clone() for writer in model.writers]
    with module.disable_adapter():
        for writer, other in zip(model.writers, plain.writers, strict=True):
            assert torch.equal(writer.vectors, other.vectors)
    module.merge_adapter()
    for writer, vectors in zip(model.writers, before, strict=True):
        assert torch.allclose(writer.vectors, vectors, atol=1e-6)
    merged = Model(module.merge_and_unload())
    for writer, vectors in zip(merged.writers, before, strict=True):
        assert torch.allclose(writer.vectors, vectors, atol=1e-6)


def test_what_is_added_to_a_writer_under_lora_acts() -> None:
    module, _ = adapted("llama", peft.LoraConfig(r=4, target_modules=TARGETS))
    writer = Model(module).writers[1]
    before = writer.vectors.clone()
    writer.own_weight[:, 3] += 1.0
    change = writer.vectors - before
    assert torch.allclose(change[:, 3], torch.ones(32), atol=1e-5)
    assert not change[:, :3].any()


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", peft.LoraConfig(r=4, target_modules=TARGETS, use_dora=True)),
        ("llama", peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])),
        ("llama", peft.LoHaConfig(r=4, target_modules=TARGETS)),
        ("llama", peft.VeraConfig(r=4, target_modules=TARGETS)),
        ("llama", peft.AdaLoraConfig(r=4, target_modules=TARGETS, total_step=10)),
        ("mixtral", peft.LoraConfig(r=4, target_parameters=["mlp.experts.down_proj"])),
    ],
    ids=["dora", "ia3", "loha", "vera", "adalora", "experts"],
)
def test_an_adapter_that_is_no_plain_sum_is_refused_until_it_is_merged(family: str, config: Any) -> None:
    module, _ = adapted(family, config)
    with pytest.raises(ModelError, match=r"Merge the adapter first: model\.merge_and_unload\(\)"):
        Model(module)
    assert Model(module.merge_and_unload()).num_neurons == Model(tiny(family)[0]).num_neurons


def test_adapters_beside_the_writers_are_left_alone() -> None:
    module, _ = adapted("llama", peft.LoraConfig(r=4, target_modules=["q_proj", "up_proj"], use_dora=True))
    assert Model(module).num_neurons == Model(tiny("llama")[0]).num_neurons


def test_a_compiled_model_is_read_uncompiled_and_compiled_parts_are_refused() -> None:
    module: Any = tiny("llama")[0]
    assert Model(torch.compile(module, backend="eager")).module is module  # type: ignore[arg-type]
    module.model.layers[1].mlp = torch.compile(module.model.layers[1].mlp, backend="eager")
    with pytest.raises(ModelError, match=r"'model\.layers\.1\.mlp' of LlamaForCausalLM is compiled"):
        Model(module)
    module = tiny("llama")[0]
    module.compile(backend="eager")
    with pytest.raises(ModelError, match="LlamaForCausalLM is compiled"):
        Model(module)


def test_a_quantized_writer_gives_a_copy_and_is_not_editable() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    module, _ = tiny("llama")
    plain = Model(module).writers[0].vectors.clone()
    quantization.quantize_(module, quantization.Int8WeightOnlyConfig())
    writer = Model(module).writers[0]
    assert writer.vectors.shape == plain.shape
    assert (writer.vectors - plain).norm() < 0.02 * plain.norm()
    assert not writer.editable
    with pytest.raises(ModelError, match="offloaded or quantized"):
        _ = writer.own_weight


@pytest.mark.parametrize("fault", ["left out", "twice"])
def test_the_sum_of_all_writers_is_checked_at_load(fault: str) -> None:
    """A shared expert that is not found beside the routed ones, or found twice."""
    module, _ = tiny("deepseek_v3")
    model = Model(module)
    block = next(block for block in model.blocks if block.experts)
    dense, routed = list(block.dense), [writer for writer in block.writers if writer.expert is not None]
    require_sums("it", module, [block], model.device)
    wrong = [] if fault == "left out" else [*dense, dataclasses.replace(dense[0], site=(block.layer, "again"))]
    other = Block(block.layer, block.path, block.module, [*wrong, *routed], block.experts, block.hidden_size)
    with pytest.raises(ModelError, match=r"it: in layer 1.*do not reproduce"):
        require_sums("it", module, [other], model.device)
