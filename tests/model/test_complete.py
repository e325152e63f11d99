"""A checkpoint that lacks tensors, has others, or is downloaded in part is refused, whatever its architecture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import neuronwise as nw
from neuronwise.errors import ModelError


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def change(folder: Path, how: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "model.safetensors")
    how(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def test_every_missing_misshapen_and_unexpected_tensor_is_in_one_message(copy: Path) -> None:
    def spoil(state: dict[str, Tensor]) -> None:
        for layer in range(3):
            del state[f"model.layers.{layer}.mlp.up_proj.weight"]
        del state["lm_head.weight"]
        state["model.norm.weight"] = torch.ones(31)
        state["v_head.weight"] = torch.ones(3)

    change(copy, spoil)
    with pytest.raises(ModelError) as refused:
        nw.load(copy)
    said = str(refused.value)
    assert "LlamaForCausalLM: it lacks lm_head.weight, model.layers.0-2.mlp.up_proj.weight; " in said
    assert "of 31 instead of 32 is model.norm.weight; " in said
    assert "unexpected are v_head.weight" in said
    assert "\n" not in said


def test_a_part_for_another_task_is_left_out_with_a_warning(copy: Path) -> None:
    change(copy, lambda state: state.update({"v_head.weight": torch.ones(3)}))
    with pytest.warns(UserWarning, match=r"unexpected are v_head\.weight; they are left out"):
        model = nw.load(copy)
    assert model.num_neurons == 144


def test_what_is_missing_may_be_wanted(copy: Path) -> None:
    change(copy, lambda state: state.pop("lm_head.weight"))
    assert nw.load(copy, check=False).num_neurons == 144


def test_tied_embeddings_are_not_missed(tmp_path: Path, tiny_tokenizer: object) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(tiny_tokenizer), n_embd=32, n_layer=2, n_head=4)  # type: ignore[arg-type]
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert nw.load(tmp_path).num_layers == 2


def test_a_folder_downloaded_in_part_says_what_is_absent(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    where = {}
    for number, part in enumerate((list(state)[::2], list(state)[1::2]), start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        where |= dict.fromkeys(part, file)
        save_file({name: state[name] for name in part}, copy / file, metadata={"format": "pt"})
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    assert nw.load(copy).num_layers == 3
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"in part: 1 of its 2 files .* is not there \(model-00002-of-00002"):
        nw.load(copy)
    index.write_text("[]")
    with pytest.raises(ModelError, match="is damaged"):
        nw.load(copy)
