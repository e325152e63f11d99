"""Neurons in the names of other tools: what is there is our activation, and import takes back what export wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

import neuronwise as nw
from conformed import words
from families import tiny
from neuronwise.errors import NeuronError
from neuronwise.model.exchange import FORMS, exported
from neuronwise.model.prompt import Prompted
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron
from shell import refused, shell

numbers = st.integers(min_value=0, max_value=10**6)
scores = st.floats(allow_nan=False, allow_infinity=False)


def sets(neurons: st.SearchStrategy[Neuron]) -> st.SearchStrategy[NeuronSet]:
    member = st.builds(ScoredNeuron, neurons, scores, st.none() | scores, st.none() | numbers, st.none() | scores)
    unique = st.lists(member, min_size=1, max_size=20, unique_by=lambda one: (one.neuron, one.position))
    return unique.map(lambda members: NeuronSet(tuple(members), {"method": "made up"}))


dense = sets(st.builds(Neuron, layer=numbers, unit=numbers))
routed = sets(st.builds(Neuron, layer=numbers, unit=numbers, expert=st.none() | numbers))


@pytest.fixture(scope="module")
def llama() -> nw.Model:
    return nw.Model(tiny("llama")[0])


def activations(module: Any, inputs: dict[str, Any]) -> tuple[nw.Model, nw.Run, int]:
    model = nw.Model(module)
    run = nw.Run.of(model, Prompted("", False, inputs))
    read = run.forced_inputs()
    return model, run, read.get("decoder_input_ids", read["input_ids"]).shape[1] - 1


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "gemma2", "phi3", "llava", "t5"])
def test_the_hook_of_transformer_lens_has_our_activation(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridges = pytest.importorskip("transformer_lens.model_bridge")
    # It would install torchvision, and with it another build of torch, where a folder has no processor.
    from transformer_lens.model_bridge.sources.transformers import helpers

    monkeypatch.setattr(helpers, "_ensure_torchvision", lambda: False)
    wrapped: Any = tiny(name)[0]  # of its own: the bridge changes what it wraps
    words().save_pretrained(tmp_path)
    wrapped.config.architectures = [type(wrapped).__name__]
    wrapped.config.save_pretrained(tmp_path)
    bridge = bridges.TransformerBridge.boot_transformers(str(tmp_path), hf_model=wrapped)
    model, run, last = activations(*tiny(name))
    places = [ScoredNeuron(Neuron(layer, unit), 0.0, position=last) for layer in range(3) for unit in (0, 7, 23)]
    rows: Any = exported(places, "transformer_lens", model=model)["neurons"]
    read = run.forced_inputs()
    with torch.no_grad():
        _, cache = bridge.run_with_cache(read.pop("input_ids"), **read)
    ours = run.activations(0)
    for place, row in zip(places, rows, strict=True):
        fired = model.blocks[place.neuron.layer].dense[0].fired(ours)
        assert fired is not None
        theirs = cache[row["hook"]][0, row["pos"], row["unit"]]
        assert_close(theirs, fired[place.neuron.unit], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["gpt2", "llama", "opt", "falcon", "mpt", "qwen2_moe", "deepseek_v3", "llava", "qwen2_5_vl", "bamba"]
)
def test_the_module_of_nnsight_has_our_activation(name: str) -> None:
    model, run, last = activations(*tiny(name))
    places = [
        ScoredNeuron(writer.neuron(column), 0.0, position=last)
        for writer in model.writers
        for column in (0, writer.width - 1)
        if writer.expert is None
    ]
    rows: Any = exported(places, "nnsight", model=model)["neurons"]
    got: dict[str, torch.Tensor] = {}
    for path in {row["module"] for row in rows}:
        module = model.module.get_submodule(path)
        module.register_forward_pre_hook(lambda _, args, path=path: got.update({path: args[0].detach()}))
    with torch.no_grad():
        model.module(**run.forced_inputs())
    ours = run.activations(0)
    for place, row in zip(places, rows, strict=True):
        writer = model.blocks[place.neuron.layer].writer(place.neuron)
        fired = writer.fired(ours)
        assert fired is not None
        theirs = got[row["module"]].reshape(-1, writer.width)[row["pos"], row["unit"]]
        assert_close(theirs, fired[place.neuron.unit - writer.first], rtol=1e-4, atol=1e-5)


@given(found=routed)
def test_hooks_come_back(tmp_path_factory: pytest.TempPathFactory, found: NeuronSet) -> None:
    path = tmp_path_factory.mktemp("set") / "hooks.json"
    nw.export_neurons(found, path, "transformer_lens")
    assert nw.import_neurons(path) == found


@given(found=dense)
def test_neuronpedia_s_rows_come_back(tmp_path_factory: pytest.TempPathFactory, found: NeuronSet) -> None:
    path = tmp_path_factory.mktemp("set") / "rows.json"
    nw.export_neurons(found, path, "neuronpedia", model_id="gpt2-small")
    rows = json.loads(path.read_text())["neurons"]
    assert {type(row[key]) for row in rows for key in ("modelId", "layer", "index")} == {str}
    assert nw.import_neurons(path) == found


@pytest.mark.parametrize("form", ["nnsight", "nnterp"])
@given(data=st.data())
def test_module_paths_come_back(
    tmp_path_factory: pytest.TempPathFactory, llama: nw.Model, form: str, data: st.DataObject
) -> None:
    there = st.builds(Neuron, layer=st.integers(0, 2), unit=st.integers(0, llama.blocks[0].width - 1))
    found = data.draw(sets(there))
    path = tmp_path_factory.mktemp("set") / "modules.json"
    nw.export_neurons(found, path, form, model=llama)
    assert nw.import_neurons(path, model=llama) == found


HOOK, MODULE = "blocks.1.mlp.hook_post", "model.layers.1.mlp.down_proj"
WAYS = [
    ([{"hook": HOOK, "unit": 5, "pos": 3}], "L1.U5@3"),
    ({"hook_name": HOOK, "neuron": "5"}, "L1.U5"),
    ({HOOK: [5], "blocks.0.mlp.hook_post": [2, 3]}, "L1.U5 L0.U2 L0.U3"),
    ([{"hook": "blocks.1.mlp.out.hook_in", "index": 5}], "L1.U5"),
    ([{"hook": "decoder_blocks.1.mlp.hook_post", "unit": 5}], "L1.U5"),
    ([{"hook": "blocks.1.mlp.experts.2.hook_post", "unit": 5}], "L1.E2.U5"),
    ({MODULE: [5, 6]}, "L1.U5 L1.U6"),
    ([{"module": "model.layers[1].mlp.down_proj.input", "unit": 5, "position": 0}], "L1.U5@0"),
    ([{"path": "layers[1].mlp.down_proj", "unit": 5}], "L1.U5"),
    ([{"modelId": "gpt2-small", "layer": "1", "index": "5", "maxActApprox": 2.0}], "L1.U5"),
    ([{"modelId": "gpt2-small", "layer": 1, "index": 5}], "L1.U5"),
    (["gpt2-small@1:5", "https://neuronpedia.example/gpt2-small/0/7"], "L1.U5 L0.U7"),
    ("gpt2-small/1/5", "L1.U5"),
]


@pytest.mark.parametrize(("content", "neurons"), WAYS)
def test_files_hold_neurons_in_several_ways(content: object, neurons: str, tmp_path: Path, llama: nw.Model) -> None:
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps(content))
    model = None if "experts" in str(content) else llama
    assert " ".join(map(str, nw.import_neurons(path, model=model))) == neurons


WRONG = [
    ([], "holds no rows that name neurons"),
    ([7], r"names neurons in no form that is known \(transformer_lens, nnsight, nnterp, neuronpedia\)"),
    ([{"layer": 1}], "no form that is known"),
    ([{"hook": HOOK}], "Row 1 of .*: 'unit' must be a whole number from 0; there is none"),
    ([{"hook": HOOK, "unit": 1}, {"hook": HOOK, "unit": -1}], "Row 2 of .*'unit' must be .*; it is -1"),
    ([{"hook": HOOK, "unit": 1.5}], "it is 1.5"),
    ([{"hook": HOOK, "unit": True}], "it is True"),
    ([{"hook": HOOK, "unit": "9" * 5000}], "it is '999"),
    ([{"hook": f"blocks.{'9' * 5000}.mlp.hook_post", "unit": 1}], "is not a hook of neurons"),
    ([{"hook": HOOK, "unit": 1, "pos": "last"}], "'pos' must be a whole number from 0; it is 'last'"),
    (
        [{"hook": "blocks.1.hook_resid_post", "unit": 1}],
        "is not a hook of neurons; those are blocks.LAYER.mlp.hook_post",
    ),
    ([{"hook": HOOK, "unit": 1}, {"hook": HOOK, "unit": 1}], "holds each neuron once"),
    ([{"hook": HOOK, "unit": 1, "score": "high"}], "score='high' does not fit"),
    ([{"hook": HOOK, "unit": 99}], "Row 1 of .*There is no neuron L1.U99: layer 1 has units 0 to 47"),
    ([{"hook": "blocks.9.mlp.hook_post", "unit": 1}], "no neuron L9.U1: .* has layers 0 to 2"),
    ([{"module": "model.layers.1.self_attn.o_proj", "unit": 1}], "has no module .* the first is 'model.layers.0.mlp"),
    ([{"module": MODULE, "unit": 99}], "has columns 0 to 47; there is no column 99"),
    ([{"modelId": "gpt2-small", "layer": "1-res-jb", "index": "5"}], "a layer of features, not of neurons"),
]


@pytest.mark.parametrize(("content", "said"), WRONG)
def test_what_cannot_be_read_is_named(content: object, said: str, tmp_path: Path, llama: nw.Model) -> None:
    path = tmp_path / "neurons.json"
    path.write_text(json.dumps(content))
    with pytest.raises(NeuronError, match=said):
        nw.import_neurons(path, model=llama)


def test_what_a_tool_has_no_name_for_is_refused(tmp_path: Path, llama: nw.Model) -> None:
    moe, shared = nw.Model(tiny("mixtral")[0]), nw.Model(tiny("qwen2_moe")[0])
    cases: list[tuple[str, str, dict[str, Any], str]] = [
        ("L0.U1", "nnsight", {}, "names of a model's own modules; give the model"),
        ("L0.U1", "neuronpedia", {}, "models by ids of its own, such as gpt2-small"),
        ("L0.E1.U1", "neuronpedia", {"model_id": "x"}, "routed expert, for which Neuronpedia has no name"),
        ("L0.E1.U1", "nnsight", {"model": moe}, "shares one parameter with others"),
        ("L0.U1", "transformer_lens", {"model": shared}, "several feed-forward matrices"),
        ("L9.U1", "transformer_lens", {"model": llama}, "There is no neuron L9.U1"),
        ("L0.U1", "lens", {}, "There is no form of neurons 'lens'"),
    ]
    for neuron, form, options, said in cases:
        with pytest.raises(NeuronError, match=said):
            nw.export_neurons(neuron, tmp_path / "out.json", form, **options)
    assert not (tmp_path / "out.json").exists()


def test_the_shell_exports_and_imports(tmp_path: Path, tiny_folder: Path) -> None:
    found = NeuronSet((ScoredNeuron(Neuron(1, 5), 0.5, 2.0, 3), ScoredNeuron(Neuron(0, 2), 0.25)), {"method": "x"})
    found.save(tmp_path / "set.json")
    for form in FORMS:
        out, back = tmp_path / f"{form}.json", tmp_path / f"{form}-back.json"
        model = ("--model", tiny_folder, "--model-id", "tiny")
        printed = shell("neurons", "export", tmp_path / "set.json", "--form", form, "--out", out, *model, "--json")
        assert json.loads(printed.stdout) == json.loads(out.read_text())
        shell("neurons", "import", out, "--out", back, "--model", tiny_folder)
        assert NeuronSet.load(back) == found
    for address, place in (("L1.U5", ":"), ("L1.U5@3", 'row["pos"]')):  # None there would be another axis
        said = shell("neurons", "export", address, "--form", "transformer_lens").stdout
        assert f'cache[row["hook"]][0, {place}, row["unit"]]' in said
    said = refused("neurons", "export", "L1.U5", "--form", "nnsight", "--out", tmp_path / "none.json")
    assert "give the model" in said
    assert not (tmp_path / "none.json").exists()
    assert "cannot be read: No such file" in refused("neurons", "import", tmp_path / "missing.json")
