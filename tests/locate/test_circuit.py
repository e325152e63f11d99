"""Circuits: edges add up to relevance, a cut is a cut, saved and loaded, drawn, on the shell."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

import neuronwise as nw
from families import tiny
from neuronwise.errors import MethodError, NeuronwiseError, TargetError
from neuronwise.locate.circuit import circuit
from neuronwise.locate.graph import ROOT, Circuit
from neuronwise.locate.memory import bytes_needed
from neuronwise.locate.relp import readout_weights
from neuronwise.model import Model, Run, Target
from neuronwise.model.passes import edit, edit_input, frozen_parameters
from neuronwise.model.prompt import Prompted
from neuronwise.model.relevance import relevance_rules
from neuronwise.model.stream import written_gradients

SCHEMA = jsonschema.Draft202012Validator(nw.schemas()["neuronwise.circuit/1"])
FAMILIES = (
    "llama", "gpt2", "gemma2", "qwen2_moe", "llama_shared", "opt", "mixtral", "deepseek_v3", "gpt_oss", "llama4_text",
    "dbrx", "jetmoe", "switch_transformers",
)  # fmt: skip


class Letters:
    """A tokenizer of one letter for each token."""

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(chr(97 + token % 26) for token in ids)


def run_of(name: str) -> Run:
    module, inputs = tiny(name, torch.float64)
    model = Model(module, Letters())
    return Run.of(model, Prompted("", False, inputs), [5, 6])


def total(run: Run, target: int, neuron: nw.ScoredNeuron) -> float:
    """a · ∂̃y/∂a of one neuron at one position, from a pass that cuts nothing."""
    weights = readout_weights(run.model, run, Target(target, 0, "t"), None)
    with relevance_rules(run.model):
        written = written_gradients(run.model, run.forced_inputs(), [(run.row(0), weights)], direct=False, capped=False)
    assert neuron.position is not None
    writer = run.model.writer(neuron.neuron)
    fired = writer.fired(run.rows([neuron.position]))
    assert fired is not None
    column = neuron.neuron.unit - writer.first
    direction = written.gradients[0][writer.site][neuron.position]
    return float(fired[column] * writer.project(direction[None])[0, column])


@pytest.mark.parametrize("name", FAMILIES)
def test_edges_and_rest_add_up_to_relevance_on_both_sides(name: str) -> None:
    run = run_of(name)
    found = circuit(run.model, run, target=9, position=0, nodes=25)
    assert len(found.nodes) == 25
    scores = [abs(node.score) for node in found.nodes]
    assert scores == sorted(scores, reverse=True)
    scale = max(scores[0], abs(found.value))
    for node in found.nodes:
        assert node.score == pytest.approx(total(run, 9, node), abs=1e-4 * scale)
        incoming = sum(edge.weight for edge in found.into(str(node)))
        assert incoming + found.rest[str(node)] == pytest.approx(node.score, abs=1e-5 * scale)
        # Everything that a node passes on leaves it by an edge: what it has is what the places above have of it.
        assert sum(edge.weight for edge in found.out_of(str(node))) == pytest.approx(node.score, abs=1e-4 * scale)
    assert sum(e.weight for e in found.into(ROOT)) + found.rest[ROOT] == pytest.approx(found.value, abs=1e-5 * scale)
    weights = [abs(edge.weight) for edge in found.edges]
    assert weights == sorted(weights, reverse=True)


def test_without_biases_the_leaves_have_it_all() -> None:
    run = run_of("llama")
    found = circuit(run.model, run, target=9, position=0, nodes=25)
    assert all(abs(rest) < 1e-4 for rest in found.rest.values())
    passed_on = sum(edge.weight for edge in found.edges if edge.source.startswith("@"))
    assert passed_on == pytest.approx(found.value, abs=1e-4)
    assert [leaf.position for leaf in found.leaves] == list(range(run.length + 1 + run.row(0)))


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "gpt_oss", "deepseek_v3", "dbrx"])
def test_neurons_of_routed_experts_are_nodes(name: str) -> None:
    run = run_of(name)
    found = circuit(run.model, run, target=9, position=0, nodes=25, heads=0)
    routed = [node for node in found.nodes if node.neuron.expert is not None]
    assert routed
    for node in routed:
        assert node.position is not None
        fired = run.model.writer(node.neuron).fired(run.rows([node.position]))
        assert fired is not None
        assert node.activation == pytest.approx(float(fired[node.neuron.unit]))
        assert found.into(str(node))
    assert Circuit.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def position_of(found: Circuit, place: str) -> int:
    return found.leaves[-1].position if place == ROOT else int(place.rpartition("@")[2])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mixtral", "deepseek_v2", "falcon", "qwen2_moe"])
def test_heads_carry_what_passes_between_positions(name: str) -> None:
    """Nothing else moves relevance from one position to another, so there the parts are the whole edge."""
    run = run_of(name)
    found = circuit(run.model, run, target=9, position=0, nodes=12, heads=5000)
    scale = max(abs(node.score) for node in found.nodes)
    across = [e for e in found.edges if position_of(found, e.source) != position_of(found, e.target)]
    assert across
    for edge in across:
        assert sum(edge.heads.values()) == pytest.approx(edge.weight, abs=1e-5 * scale)
    for edge in found.edges:  # a head writes where it is, so it has no part in places below it
        layers = [nw.Head.parse(head).layer for head in edge.heads]
        assert all(layer <= nw.ScoredNeuron.parse(edge.target).neuron.layer for layer in layers if edge.target != ROOT)
        assert list(edge.heads.values()) == sorted(edge.heads.values(), key=abs, reverse=True)


def test_what_a_head_brings_is_what_its_edges_carry() -> None:
    """In a model without biases; and it is input · gradient of the head's output, with the heads above held fixed."""
    run = run_of("llama")
    found = circuit(run.model, run, target=9, position=0, nodes=12, heads=5000)
    assert set(found.hops) <= {str(node) for node in found.nodes} | {ROOT}
    scale = max(abs(node.score) for node in found.nodes)
    for place, brought in found.hops.items():
        for head, weight in brought.items():
            carried = sum(edge.heads.get(head, 0.0) for edge in found.into(place))
            assert carried == pytest.approx(weight, abs=1e-5 * scale)
    direct = relevance_of_last_layers_heads(run, 9)
    for number, weight in enumerate(direct):
        assert found.hops[ROOT][f"L2.H{number}"] == pytest.approx(weight, abs=1e-5 * scale)


def relevance_of_last_layers_heads(run: Run, target: int) -> list[float]:
    """⟨U_t − mean of U, norm(W_o z_h)⟩ of the last layer, through that layer's neurons too, by autograd."""
    core: Any = run.model.module
    layer, kept = core.model.layers[2], []

    def leaf(values: torch.Tensor) -> torch.Tensor:
        kept.append(values.detach().requires_grad_(True))
        return kept[0]

    nodes = circuit(run.model, run, target=target, position=0, nodes=12, heads=0).nodes
    held = [node.neuron.unit for node in nodes if node.neuron.layer == 2 and node.position == run.length - 3]

    def hold(values: torch.Tensor) -> torch.Tensor:  # nodes are cut
        values = values.clone()
        values[0, -3, held] = values[0, -3, held].detach()
        return values

    with (
        frozen_parameters(core),
        relevance_rules(run.model),
        edit_input(layer.self_attn.o_proj, leaf),
        edit_input(layer.mlp.down_proj, hold),
    ):
        logits = run.model.forward(run.forced_inputs(), rows=[-3])[0, -1]
    (gradient,) = torch.autograd.grad(logits[target] - logits.mean(), kept[0])
    return (gradient * kept[0].detach())[0, -3].reshape(4, 8).sum(-1).tolist()


def test_the_strongest_hops_are_told_apart_and_saved() -> None:
    run = run_of("llama")
    every = circuit(run.model, run, target=9, position=0, nodes=12, heads=5000)
    few = circuit(run.model, run, target=9, position=0, nodes=12, heads=5)
    sizes = sorted((abs(w) for brought in every.hops.values() for w in brought.values()), reverse=True)
    assert sorted((abs(w) for brought in few.hops.values() for w in brought.values()), reverse=True) == sizes[:5]
    assert [(e.source, e.target, e.weight) for e in few.edges] == [(e.source, e.target, e.weight) for e in every.edges]
    content = json.loads(json.dumps(few.to_dict()))
    SCHEMA.validate(content)
    assert Circuit.from_dict(content) == few
    head = next(iter(next(edge for edge in few.edges if edge.heads).heads))
    content["edges"][0]["heads"] = {head.replace("H", "U"): 1.0}
    assert not SCHEMA.is_valid(content)
    old = {key: value for key, value in content.items() if key != "heads"}  # as written before heads were told
    old["nodes"] = [{k: v for k, v in row.items() if k != "heads"} for row in old["nodes"]]
    old["edges"] = [{k: v for k, v in row.items() if k != "heads"} for row in old["edges"]]
    SCHEMA.validate(old)
    assert Circuit.from_dict(old).hops == {}


def test_the_leaves_of_an_encoder_decoder_are_the_decoders_tokens() -> None:
    run = run_of("t5")
    found = circuit(run.model, run, target=9, position=2, nodes=5)
    ids = run.forced_inputs()["decoder_input_ids"][0].tolist()
    assert [leaf.label for leaf in found.leaves] == [Letters().decode([token]) for token in ids]


def test_an_edge_passes_no_selected_node() -> None:
    """With every neuron of a layer a node, nothing below it reaches what is above but along the residual stream."""
    run = run_of("llama")
    few = circuit(run.model, run, target=9, position=0, nodes=5)
    many = circuit(run.model, run, target=9, position=0, nodes=400)
    first = {(e.source, e.target): e.weight for e in few.edges}
    direct = {(e.source, e.target): e.weight for e in many.edges}
    leaf = next(edge for edge in few.edges if edge.source.startswith("@") and edge.target == ROOT)
    assert direct[leaf.source, ROOT] != pytest.approx(first[leaf.source, ROOT], rel=1e-3)  # it went through neurons
    places = {str(node) for node in many.nodes} | {ROOT}
    assert {edge.target for edge in many.edges} <= places


def test_what_cannot_be_drawn_is_refused() -> None:
    run = run_of("llama")
    with pytest.raises(MethodError, match="nodes is 0"):
        circuit(run.model, run, target=9, nodes=0)
    with pytest.raises(TargetError):
        circuit(run.model, run)
    with pytest.raises(MethodError, match="heads is -1"):
        circuit(run.model, run, target=9, heads=-1)
    bamba = run_of("bamba")
    with pytest.raises(MethodError, match="no rule for"):
        circuit(bamba.model, bamba, target=9, position=0)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    run = run_of("llama")
    found = circuit(run.model, run, target=9, position=0, nodes=8)
    found.save(tmp_path / "circuit.json")
    content = json.loads((tmp_path / "circuit.json").read_text())
    SCHEMA.validate(content)
    for change in ({"nodes": []}, {"edges": [{"source": "@1", "target": "top", "weight": 1.0}]}, {"value": None}):
        assert not SCHEMA.is_valid({**content, **change})
    assert Circuit.load(tmp_path / "circuit.json") == found
    (tmp_path / "circuit.json").write_text('{"schema": "neuronwise.circuit/1"}')
    with pytest.raises(NeuronwiseError, match="damaged"):
        Circuit.load(tmp_path / "circuit.json")
    with pytest.raises(NeuronwiseError, match="cannot be read"):
        Circuit.load(tmp_path / "none.json")
    with pytest.raises(NeuronwiseError, match="without its run"):
        Circuit.from_dict(json.loads(json.dumps(found.to_dict()))).page(tmp_path)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "opt"])
def test_the_estimate_of_memory_bounds_what_the_graph_keeps(name: str) -> None:
    run = run_of(name)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    parameters = {p.untyped_storage().data_ptr() for p in run.model.module.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), relevance_rules(run.model):
        embedded = run.model.module.get_input_embeddings()
        with edit(embedded, lambda values: values.detach().requires_grad_(True)):
            run.model.forward(run.forced_inputs(), rows=[-1])
    real = sum(size for place, size in kept.items() if place not in parameters)
    graph, _ = bytes_needed(run.model, run.length, 10, 0)
    assert real < 1.5 * graph
    assert graph < 6 * real


def test_a_circuit_too_large_is_refused_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of("llama")
    monkeypatch.setattr(import_module("neuronwise.locate.memory"), "bytes_free", lambda device: 2**20)
    monkeypatch.setattr(type(run.model), "forward", lambda *_: pytest.fail("nothing is to be computed"))
    with pytest.raises(MethodError, match=r"A circuit of 5000 nodes over 9 positions of .* needs about 4\.\d GiB"):
        circuit(run.model, run, target=9, nodes=5000)


@pytest.mark.long
@pytest.mark.builtin
def test_the_built_in_model_on_a_photo_and_its_page(builtin: Model, chelsea: Path, tmp_path: Path) -> None:
    run = builtin.run(image=chelsea, max_new_tokens=8)
    found = nw.circuit(builtin, run, "cat", nodes=30, contrast=2)
    assert found.record["target"] == "cat"
    kinds = {leaf.kind for leaf in found.leaves}
    assert kinds == {"image", "token"}
    patches = [leaf for leaf in found.leaves if leaf.kind == "image"]
    assert [leaf.position for leaf in patches] == run.image_positions.tolist()
    page = found.page(tmp_path).read_text(encoding="utf-8")
    assert "<script" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    content = json.loads((tmp_path / "circuit.json").read_text(encoding="utf-8"))
    SCHEMA.validate(content)
    assert content["schema"] == "neuronwise.circuit/1"
    assert len(content["nodes"]) == 30


@pytest.mark.builtin
def test_suppressing_a_circuits_neurons_takes_the_answer(builtin_text: Model) -> None:
    run = builtin_text.run(prompt="The capital of France is", max_new_tokens=0, chat=False)
    found = nw.circuit(builtin_text, run, target=" Paris", nodes=20, contrast=10)

    def log_p() -> float:
        with torch.no_grad():
            return float(builtin_text.forward(run.forced_inputs(), rows=[-1])[0, -1].log_softmax(-1)[run.answer])

    before = log_p()
    random = nw.locate(builtin_text, run, target=" Paris", method="random", top=20)
    with nw.suppress(builtin_text, random):
        assert before - log_p() < 1
    with nw.suppress(builtin_text, found.nodes):
        assert before - log_p() > 5


def test_a_photo_that_is_not_one_is_told_before_a_model_is_opened(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(photo)
    from typer.testing import CliRunner

    from neuronwise.cli import app

    for given in ([str(photo)], ["--text", "a", str(photo)], ["--text", "a", "--concept", "b", "--target", "c"], []):
        done = CliRunner().invoke(app, ["circuit", *given])
        assert isinstance(done.exception, NeuronwiseError), given
