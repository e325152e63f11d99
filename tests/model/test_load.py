"""Opening checkpoints: folders, dtypes, placements, modules that are already loaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from neuronwise.edit.export.peft import published_name
from neuronwise.errors import ModelError
from neuronwise.model.load import outline


def found_in(model: nw.Model, **options: Any) -> nw.NeuronSet:
    run = model.run(prompt="the capital of France is", max_new_tokens=3)
    return nw.locate(model, run, target=" Paris", position=0, top=20, **options)


def test_a_folder_and_a_loaded_module_are_the_same(tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    module = AutoModelForCausalLM.from_pretrained(tiny_folder)
    wrapped = nw.Model(module, AutoTokenizer.from_pretrained(tiny_folder))
    assert found_in(wrapped).members == found_in(nw.load(tiny_folder)).members
    assert (wrapped.num_layers, wrapped.num_neurons) == (3, 144)
    assert wrapped.blocks[1].value_vectors.shape == (32, 48)
    assert wrapped.blocks[1].value_vectors.data_ptr() == module.model.layers[1].mlp.down_proj.weight.data_ptr()


@pytest.mark.parametrize("method", ["contribution", "gradient_activation", "integrated_gradients", "log_prob_increase"])
def test_half_precision_is_kept_and_scores_are_float32(tiny_folder: Path, method: str) -> None:
    model = nw.load(tiny_folder, dtype=torch.bfloat16)
    assert next(model.module.parameters()).dtype == torch.bfloat16
    found = found_in(model, method=method)
    exact = found_in(nw.load(tiny_folder), method=method)
    assert len(set(found.neurons) & set(exact.neurons)) >= 10


@pytest.mark.parametrize("normalize", [False, True])
def test_weights_on_disk_give_the_same(tiny_folder: Path, tmp_path: Path, normalize: bool) -> None:
    """Layers kept on disk are brought in when they are called, and when their value vectors are read."""
    placement = {
        "model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu",
        "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk",
    }  # fmt: skip
    model = nw.load(tiny_folder, device_map=placement, offload_folder=tmp_path)
    assert any(parameter.is_meta for parameter in model.module.parameters())
    found, exact = found_in(model, normalize=normalize), found_in(nw.load(tiny_folder), normalize=normalize)
    assert found.neurons == exact.neurons
    assert [m.score for m in found] == pytest.approx([m.score for m in exact], rel=1e-4)
    assert nw.decode(model, found[0].neuron) == nw.decode(nw.load(tiny_folder), found[0].neuron)


def test_a_model_without_tokenizer_says_so(tiny_model: nw.Model) -> None:
    with pytest.raises(ModelError, match="no tokenizer"):
        nw.Model(tiny_model.module).run(prompt="the")


def test_a_block_that_does_not_add_up_is_refused(tiny_folder: Path) -> None:
    """Something after the writer that no linear view explains: the model is refused, not mis-scored."""
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_pretrained(tiny_folder)
    block = module.model.layers[0].mlp
    plain = block.forward
    block.forward = lambda hidden: torch.tanh(plain(hidden))
    with pytest.raises(ModelError, match=r"layer 0.*do not reproduce"):
        nw.Model(module)


def test_nothing_is_pickled(tmp_path: Path, tiny_folder: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot be opened"):
        nw.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ('{"model_type": "llama"}', False),
        ('{"model_type": "llava", "vision_config": {"model_type": "paired_grid"}}', True),
        (None, True),  # a name of the hub, whose settings nobody has read yet
    ],
)
def test_own_families_are_imported_where_a_checkpoint_may_need_them(
    settings: str | None, needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuronwise.model import source

    asked: list[str] = []
    monkeypatch.setattr(source, "import_module", asked.append)
    if settings is not None:
        (tmp_path / "config.json").write_text(settings)
    source.register_families(str(tmp_path))
    assert bool(asked) == needed


def test_a_pipe_in_place_of_the_configuration_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    for opened in (nw.load, outline):
        with pytest.raises(ModelError):
            opened(tmp_path)


def test_a_folder_is_never_called_as_a_model_of_the_hub_is(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models" / "tiny"
    shutil.copytree(tiny_folder, folder)
    monkeypatch.chdir(tmp_path)
    called = {"models/tiny": "./models/tiny", "./models/tiny": "./models/tiny", "models/../models/tiny": "tiny",
              str(folder): "tiny"}  # fmt: skip
    for source, name in called.items():
        model = nw.load(source)
        assert (model.name, model.source) == (name, source)
    by_path = nw.load(str(folder))
    monkeypatch.chdir(folder)
    assert published_name(by_path) == "tiny"
    assert nw.load(".").name == "tiny"
    monkeypatch.chdir(folder.parent)
    model = nw.load("tiny")
    assert (model.name, published_name(model)) == ("tiny", "tiny")


def test_own_families_are_all_named() -> None:
    from transformers import CONFIG_MAPPING

    import neuronwise.architectures.register  # noqa: F401
    from neuronwise.model.source import FAMILIES

    added = CONFIG_MAPPING._extra_content.items()
    assert {kind for kind, config in added if config.__module__.startswith("neuronwise.")} == set(FAMILIES)
