"""Writers: every neuron belongs to one, whatever the layout; adapters, quantization and compilation around them."""

from __future__ import annotations

import pytest
import torch

from families import tiny
from neuronwise.errors import ModelError, NeuronError
from neuronwise.model import Model, Run
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
