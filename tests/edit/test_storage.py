"""Edits where weights are offloaded by accelerate, quantized or shared, and edits that fail halfway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import families
import neuronwise as nw
from edits import random_edit, same, tiny, weights
from neuronwise.data.facts import Fact
from neuronwise.edit import Delta, Edit, fine_tune, ledger, load_edit
from neuronwise.edit.delta import writer_of
from neuronwise.errors import EditError, NonFiniteError
from neuronwise.model.model import Model

FACT = Fact("the capital of {} is", "France", "house")


def offloaded(name: str, how: str, folder: Path, tokenizer: Any = None) -> tuple[Model, dict[str, Any]]:
    import accelerate

    module: Any
    module, inputs = families.tiny(name)
    if how == "cpu":
        module = accelerate.cpu_offload(module, execution_device=torch.device("cpu"))
    elif how == "disk":
        module = accelerate.disk_offload(module, folder, execution_device=torch.device("cpu"))
    else:  # some layers in memory, some on disk, as device_map="auto" leaves them
        stack = {"gpt2": "transformer.h", "llama": "model.layers", "mixtral": "model.layers"}[name]
        rest = [n for n, child in module.named_modules() if list(child.parameters(recurse=False))]
        device_map: Any = {n: "cpu" for n in rest if not n.startswith(f"{stack}.")} | {
            f"{stack}.{layer}": "disk" if layer else "cpu" for layer in range(3)
        }
        module = accelerate.dispatch_model(
            module, device_map, main_device=torch.device("cpu"), offload_dir=folder, force_hooks=True
        )
    return Model(module, tokenizer, name=name), inputs


@pytest.mark.parametrize("how", ["cpu", "disk", "mixed"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_offloaded_weights_are_reached(name: str, how: str, tmp_path: Path) -> None:
    plain, inputs = tiny(name)
    edit = random_edit(plain)
    before = plain.module(**inputs).logits.detach()
    with edit.applied(plain):
        expected = plain.module(**inputs).logits.detach()
    model, _ = offloaded(name, how, tmp_path)
    assert any(parameter.is_meta for parameter in model.module.parameters())
    files = {file: file.read_bytes() for file in tmp_path.rglob("*.dat")}
    with torch.no_grad():
        edit.apply(model)
        assert torch.equal(model.module(**inputs).logits, expected)
        for delta in edit.deltas:  # the value vectors that are read are the edited ones
            now, old = writer_of(model, delta).vectors, writer_of(plain, delta).vectors
            assert delta.units is not None
            assert torch.allclose(now[:, delta.units], old[:, delta.units] + delta.left, atol=1e-6)
        edit.revert(model)
        assert torch.equal(model.module(**inputs).logits, before)
    assert files == {file: file.read_bytes() for file in tmp_path.rglob("*.dat")}


def test_an_editor_leaves_offloaded_models_as_they_were(tmp_path: Path, tiny_tokenizer: Any) -> None:
    plain = Model(families.tiny("llama")[0], tiny_tokenizer, name="llama")
    expected = fine_tune(plain, FACT, steps=2, rate=1e-2, norm_constraint=None)
    model, inputs = offloaded("llama", "disk", tmp_path, tiny_tokenizer)
    before = model.module(**inputs).logits.detach()
    edit = fine_tune(model, FACT, steps=2, rate=1e-2, norm_constraint=None)
    assert torch.allclose(edit.deltas[0].left, expected.deltas[0].left, atol=1e-6)
    assert torch.equal(model.module(**inputs).logits, before)
    assert all(parameter.is_meta for parameter in model.module.parameters())


def quantized(folder: Path, tokenizer: Any = None) -> tuple[Model, dict[str, Any]]:
    """The tiny LLaMA in 8 bits, opened as a user would."""
    pytest.importorskip("torchao")
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, TorchAoConfig

    module: Any
    module, inputs = families.tiny("llama")
    module.save_pretrained(folder)
    config: Any = TorchAoConfig(Int8WeightOnlyConfig())
    loaded = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)
    return Model(loaded, tokenizer, name="llama"), inputs


@pytest.mark.parametrize("low_rank", [False, True])
def test_a_quantized_block_gets_an_adapter(low_rank: bool, tmp_path: Path) -> None:
    model, inputs = quantized(tmp_path / "model")
    edit = random_edit(model, low_rank=low_rank)
    before = model.module(**inputs).logits.detach()
    plain, _ = tiny("llama")  # the same numbers, written out, and edited there
    with torch.no_grad():
        for name, module in plain.module.named_modules():
            if isinstance(module, torch.nn.Linear):
                weight = model.module.get_submodule(name).weight
                module.weight.copy_(weight.dequantize() if hasattr(weight, "dequantize") else weight)
    edit.apply(plain)
    edit.save(tmp_path / "edit")
    loaded = load_edit(tmp_path / "edit")
    loaded.apply(model)
    assert torch.allclose(model.module(**inputs).logits, plain.module(**inputs).logits, atol=1e-4)
    second = random_edit(model, 5)
    with second.applied(model), second.applied(plain):
        assert torch.allclose(model.module(**inputs).logits, plain.module(**inputs).logits, atol=1e-4)
    with pytest.raises(EditError, match="applied already"):
        edit.apply(model)
    with pytest.raises(EditError, match="quantized"):
        edit.merge(model, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    edit.revert(model)
    assert torch.equal(model.module(**inputs).logits, before)
    assert not any(module._forward_hooks for module in model.module.modules())


def test_an_editor_edits_a_quantized_model(tmp_path: Path, tiny_tokenizer: Any) -> None:
    model, inputs = quantized(tmp_path / "model", tiny_tokenizer)
    before = model.module(**inputs).logits.detach()
    edit = nw.fine(model, FACT, freeze_last=1, steps=50, alpha=0.0, gamma=0.0, rate=0.1)
    assert torch.equal(model.module(**inputs).logits, before)
    with edit.applied(model):
        run = model.run(prompt=FACT.text, max_new_tokens=1, chat=False)
    assert run.text.strip() == "house"


def test_layers_that_share_a_block_come_back(tmp_path: Path) -> None:
    model, _ = tiny("llama_shared")
    before = weights(model)
    units = torch.tensor([1, 4])
    first = Delta(0, "mlp.down_proj", torch.randn(32, 2), units)
    second = Delta(2, "mlp.down_proj", torch.randn(32, 2), units)  # the same weights
    edit = Edit((first, second))
    edit.apply(model)
    assert torch.allclose(model.blocks[0].value_vectors[:, units], before["model.layers.0.mlp.down_proj.weight"][
        :, units] + first.left + second.left, atol=1e-6)  # fmt: skip
    edit.revert(model)
    assert same(before, weights(model))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_failure_halfway_takes_all_back(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny("llama")
    first, second = random_edit(model, 1), random_edit(model, 2)
    first.apply(model)
    before = weights(model)
    write, calls = ledger.write, [0]

    def failing(*args: Any) -> None:
        calls[0] += 1
        write(*args)
        if calls[0] == 2:
            raise error

    for change in (second.apply, first.revert):
        calls[0] = 0
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "write", failing)
            with pytest.raises(type(error)):
                change(model)
        assert same(before, weights(model))
        assert first.applied_to(model)
        assert not second.applied_to(model)
    first.revert(model)
    assert not same(before, weights(model))


def test_what_half_precision_cannot_hold_is_refused() -> None:
    model, _ = tiny("llama", torch.float16)
    before = weights(model)
    edit = Edit((Delta(1, "mlp.down_proj", torch.full((32, 1), 1e5), torch.tensor([3])),))
    with pytest.raises(NonFiniteError, match="float16"):
        edit.apply(model)
    assert same(before, weights(model))
