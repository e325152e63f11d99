"""Models that lie apart: on two devices, on disk, quantized; the same chain, the same numbers, nothing copied."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import families
import neuronwise as nw
from neuronwise import edit as editing
from neuronwise import read
from neuronwise.data.facts import Fact
from neuronwise.edit import EDITORS
from wired import red_square, wired_llava

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parent
FACT = Fact("the capital of {} is", "France", "house")
PROMPT, TARGET = "the capital of France is", " Paris"
SEARCHED = {"v_num_grad_steps": 3, "context_template_length_params": ((3, 2),)}
QUICK: dict[str, dict[str, Any]] = {
    "fine": {"steps": 3, "freeze_last": 1},
    "fine_tune": {"steps": 2, "rate": 1e-2, "norm_constraint": None},
    "knowledge_neurons": {"steps": 2},
}  # fmt: skip


# Devices stay with a process, and what a heap has held before decides how much it grows.
@pytest.mark.parametrize("file", ["on_two_devices.py", "memory_of_edits.py"])
def test_in_a_process_of_its_own(file: str) -> None:
    pytest.importorskip("torch.utils.backend_registration")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(HERE / file)]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=HERE.parents[1], env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


def on_disk(module: Any, folder: Path) -> Any:
    """Every layer but the first on disk, as ``device_map="auto"`` leaves a model that does not fit."""
    import accelerate

    stack = "model.language_model.layers" if hasattr(module.model, "language_model") else "model.layers"
    placement: dict[str, Any] = {
        f"{stack}.{layer}": "disk" if layer else "cpu" for layer in range(len(module.get_submodule(stack)))
    }
    for name, child in module.named_modules():
        holds = bool([*child.parameters(recurse=False), *child.buffers(recurse=False)])
        if holds and not name.startswith(f"{stack}."):
            placement[name] = "disk" if name == "lm_head" else "cpu"
    return accelerate.dispatch_model(
        module, placement, main_device=torch.device("cpu"), offload_dir=folder, force_hooks=True
    )


def test_a_photo_from_finding_to_reverting_with_weights_on_disk(tmp_path: Path, tiny_tokenizer: Any) -> None:
    photo, _ = red_square(7, 7)
    plain, other = wired_llava(tiny_tokenizer), wired_llava(tiny_tokenizer)
    apart = nw.Model(on_disk(other.module, tmp_path), other.processor, name=plain.name)
    assert apart.module.lm_head.weight.is_meta
    files = {file: file.read_bytes() for file in tmp_path.rglob("*.dat")}
    seen = []
    for model in (plain, apart):
        run = model.run(image=photo, max_new_tokens=2, heat=True)
        found = read.find(model, run, top=10).concepts[0].neurons
        with nw.suppress(model, found):
            silent = model.run(image=photo, max_new_tokens=2).text
        edit = nw.swap(model, run, "dog", "cat", neurons=found)
        with edit.applied(model):
            after = model.run(image=photo, max_new_tokens=2).text
        again = model.run(image=photo, max_new_tokens=2).text
        seen.append((run.text, found.neurons, nw.heatmap(model, run, found[:3]).grid, silent, after, again))
    for left, right in zip(*seen, strict=True):
        assert right == pytest.approx(left, abs=1e-4) if hasattr(left, "shape") else right == left
    assert seen[0][0] == seen[0][5]
    assert all(parameter.is_meta for parameter in apart.blocks[1].module.parameters())
    assert files == {file: file.read_bytes() for file in tmp_path.rglob("*.dat")}


@pytest.mark.parametrize("editor", ["fine", "knowledge_neurons", "memit"])
def test_editors_with_weights_on_disk(editor: str, tmp_path: Path, tiny_tokenizer: Any) -> None:
    """Also with key statistics, which are told to be the model's by its embeddings."""
    plain = nw.Model(families.tiny("llama")[0], tiny_tokenizer, name="llama")
    module: Any = families.tiny("llama")[0]
    import accelerate

    everything = accelerate.disk_offload(module, tmp_path / "weights", execution_device=torch.device("cpu"))
    apart = nw.Model(everything, tiny_tokenizer, name="llama")
    changes = dict(QUICK.get(editor, SEARCHED))
    if editor == "memit":
        texts = ["the cat sits on the mat", "the capital of France is Paris"]
        changes |= {"statistics": editing.gather_statistics(apart, texts, [1, 2], tmp_path / "keys"), "layers": (1, 2)}
    found = [EDITORS[editor].function(model, FACT, **changes) for model in (plain, apart)]
    for left, right in zip(found[0].deltas, found[1].deltas, strict=True):
        assert torch.allclose(left.left, right.left, rtol=1e-3, atol=1e-4)
    assert all(parameter.is_meta for parameter in apart.module.parameters())


def quantized(folder: Path, tokenizer: Any, how: str) -> tuple[nw.Model, Any]:
    """A small LLaMA whose weights are quantized, opened as a user would; and its settings unquantized."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    size = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=64, initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(size).save_pretrained(folder)
    config: Any
    if how.startswith("torchao"):
        ao = pytest.importorskip("torchao.quantization")
        from transformers import TorchAoConfig

        kinds = {"torchao int8": "Int8WeightOnlyConfig", "torchao int8 activations":
                 "Int8DynamicActivationInt8WeightConfig"}  # fmt: skip
        config = TorchAoConfig(getattr(ao, kinds[how])())
    else:
        pytest.importorskip("bitsandbytes")
        from transformers import BitsAndBytesConfig

        chosen: dict[str, Any] = {how.split()[1]: True}
        config = BitsAndBytesConfig(**chosen)
    loaded = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32,
                                                  device_map="cpu")  # fmt: skip
    return nw.Model(loaded, tokenizer, name=how), size


QUANTIZED = ["torchao int8", "torchao int8 activations", "bitsandbytes load_in_8bit", "bitsandbytes load_in_4bit"]


@pytest.mark.parametrize("how", QUANTIZED)
def test_quantized_weights_from_finding_to_reverting(how: str, tmp_path: Path, tiny_tokenizer: Any) -> None:
    """The value vectors that are read are what the model computes with, and an edit comes out of it again."""
    model, _ = quantized(tmp_path, tiny_tokenizer, how)
    run = model.run(prompt=PROMPT, max_new_tokens=2, chat=False)
    fired = model.record(run.forced_inputs(), rows=[-1])
    writer: Any = model.blocks[1].dense[0].module
    with torch.no_grad():
        written = writer(fired.dense[1].to(torch.float32)).float()
    product = fired.dense[1].float() @ model.blocks[1].value_vectors.float().T
    assert (written - product).norm() < 2e-2 * written.norm()
    found = nw.locate(model, run, target=TARGET, position=0, top=10)
    before = model.module(**run.prompted.inputs).logits.detach()
    with nw.suppress(model, found):
        assert not torch.allclose(model.module(**run.prompted.inputs).logits, before, atol=1e-3)
    edit = nw.fine(model, FACT, freeze_last=1, steps=30, alpha=0.0, gamma=0.0, rate=0.1)
    with edit.applied(model):
        said = model.run(prompt=FACT.text, max_new_tokens=1, chat=False).text
    assert said.strip() == "house"
    assert torch.equal(model.module(**run.prompted.inputs).logits, before)
