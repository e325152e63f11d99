"""What every editor of facts promises on tiny models: they are left alone, and edits come out to the bit."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import families
from edits import random_edit, weights
from edits import same as same_weights
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit import EDITORS, Edit, load_edit
from neuronwise.edit.presets import resolved
from neuronwise.errors import EditError, NeuronwiseError
from neuronwise.model.model import Model

FACTS = (
    Fact("the capital of {} is", "France", "house"),
    Fact("{} sits on the", "cat", "red"),
)
# Architectures of different structure, for all editors; relatives of these, for editors of each way to edit.
FAMILIES = ("gpt2", "llama", "llama_shared", "gemma2", "mixtral", "qwen2_moe", "llava", "qwen2_vl")
RELATIVES = ("gpt_neox", "opt", "bloom", "qwen3", "phi", "falcon", "cohere", "granite")
WAYS = ("fine", "fine_tune", "rome", "memit", "lora", "wise")
# What makes an editor quick, or fit three layers; for an editor that is not named, few steps.
CHANGES: dict[str, dict[str, Any]] = {
    "fine": {"steps": 3, "freeze_last": 1},
    "fine_specific": {"steps": 2, "texts": 4, "text_tokens": 8},
    "fine_tune": {"steps": 2, "rate": 1e-2, "norm_constraint": None},
    "decoupled": {"steps": 3, "freeze_last": 1},
    "knowledge_neurons": {"steps": 2},
}
KEYED = ("rome", "rome_published", "memit", "pmet", "emmet", "namet", "alphaedit", "encore", "ultraedit")
# Architectures that an editor refuses in a sentence, and what it says: a mixture has no one W_down in a layer.
REFUSED = {
    **{(name, "mixtral"): "only routed experts" for name in ("fine_tune", "lora", "grace", "wise")},
    **{(name, "mixtral"): "expert" for name in ("fine_specific", *KEYED)},
}
# Half precision is tried where the arithmetic differs: W_down as (in, out), a gate, routed experts, a photo.
HALF = ("gpt2", "llama", "qwen2_moe", "llava")
CASES = [
    pytest.param(editor, family, dtype, id=f"{editor}-{family}-{str(dtype).removeprefix('torch.')}")
    for dtype, tried in ((torch.float32, (*FAMILIES, *RELATIVES)), (torch.bfloat16, HALF))
    for editor in EDITORS
    for family in tried
    if family not in RELATIVES or editor in WAYS
]


def tiny(family: str, tokenizer: Any, dtype: torch.dtype = torch.float32) -> tuple[Model, dict[str, Any]]:
    module: Any
    module, inputs = families.tiny(family, dtype)
    if dtype == torch.bfloat16 and family == "qwen2_moe":
        module.set_experts_implementation("eager")  # torch's grouped kernel wants widths in steps of 16 bytes
    return Model(module, tokenizer, name=family), inputs


def edited(name: str, model: Model, facts: Any = FACTS[0]) -> Edit:
    editor = EDITORS[name]
    known = {field.name for field in fields(editor.settings)}
    changes = CHANGES.get(name, {"steps": 2} if "steps" in known else {})
    return editor.function(model, facts, **changes)


def refused(name: str, family: str, model: Model) -> bool:
    words = REFUSED.get((name, family))
    if words is None:
        return False
    with pytest.raises(NeuronwiseError, match=words):
        edited(name, model)
    return True


def everything(model: Model) -> dict[str, Any]:
    """All of a model that an editor could leave behind."""
    module = model.module
    modules = list(module.named_modules())
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in module.named_parameters()},
        "grad": [name for name, parameter in module.named_parameters() if parameter.grad is not None],
        "hooks": {
            name: (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for name, m in modules
        },
        "own": {name: (sorted(m.__dict__), m.training) for name, m in modules},
    }


def asked(model: Model) -> Tensor:
    """The logits behind the fact, as the model is asked it now."""
    run = forced(model, FACTS[0])
    return model.forward(run.forced_inputs(), rows=[run.row(0)]).detach()


def same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return same_weights(before["weights"], after["weights"]) and all(
        before[part] == after[part] for part in before if part != "weights"
    )


@pytest.mark.parametrize(("name", "family", "dtype"), CASES)
def test_the_model_is_left_alone_and_the_edit_comes_out(
    name: str, family: str, dtype: torch.dtype, tiny_tokenizer: Any
) -> None:
    model, inputs = tiny(family, tiny_tokenizer, dtype)
    before = everything(model)
    if refused(name, family, model):
        assert same(before, everything(model))
        return
    edit = edited(name, model)
    assert same(before, everything(model))
    assert all(delta.left.dtype == torch.float32 and delta.left.any() for delta in edit.deltas)
    logits, answer = model.module(**inputs).logits.detach(), asked(model)
    with edit.applied(model):
        assert model.edits == (edit,)
        assert not torch.equal(asked(model), answer)
        assert same_weights(before["weights"], model.module.state_dict()) == (not EDITORS[name].weights)
        if EDITORS[name].weights:
            assert not torch.equal(model.module(**inputs).logits, logits)
    assert same(before, everything(model))
    assert torch.equal(asked(model), answer)
    assert {delta.left.dtype for delta in edit.deltas} <= {torch.float32}
    assert edit.record["method"] == name
    assert {"settings", "request", "model", "versions"} <= set(edit.record)


@pytest.mark.parametrize("family", ["gpt2", "llava"])
@pytest.mark.parametrize("name", EDITORS)
def test_an_interrupt_leaves_nothing_behind(
    name: str, family: str, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = tiny(family, tiny_tokenizer)
    calls, stop = [0], [0]

    def interrupt(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == stop[0]:
            raise KeyboardInterrupt

    model.head.register_forward_hook(interrupt)
    before = everything(model)
    edited(name, model)  # what an editor generates once for a model is there from now on
    calls[0] = 0
    edited(name, model)
    total = calls[0]
    assert total > 0
    for stop[0] in sorted({1, total // 2, total} - {0}):
        calls[0] = 0
        with pytest.raises(KeyboardInterrupt):
            edited(name, model)
        assert same(before, everything(model))
    stop[0] = 0
    step, steps = torch.optim.Adam.step, [0]

    def stopped(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps[0] += 1
        if steps[0] == 2:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", stopped)
    try:
        edited(name, model)
    except KeyboardInterrupt:
        assert steps[0] == 2
    assert same(before, everything(model))


@pytest.mark.parametrize("name", EDITORS)
def test_several_facts_are_one_edit(name: str, tiny_tokenizer: Any) -> None:
    model, _ = tiny("llama", tiny_tokenizer)
    before = everything(model)
    edit = edited(name, model, FACTS)
    assert same(before, everything(model))
    assert len(edit.record["request"]) == 2
    with edit.applied(model):
        pass
    assert same(before, everything(model))


@pytest.mark.parametrize("family", ["gpt2", "llama"])  # Conv1D and Linear
@pytest.mark.parametrize("name", EDITORS)
def test_folder_adapter_and_merged_checkpoint_are_the_edit(
    name: str, family: str, tmp_path: Path, tiny_tokenizer: Any
) -> None:
    peft = pytest.importorskip("peft")
    model, inputs = tiny(family, tiny_tokenizer)
    edit = edited(name, model)
    with edit.applied(model):
        expected, answer = model.module(**inputs).logits.detach(), asked(model)
    edit.save(tmp_path / "edit")
    loaded = load_edit(tmp_path / "edit")
    assert (loaded.record, loaded.fingerprint) == (json.loads(json.dumps(edit.record)), edit.fingerprint)
    with loaded.applied(model):
        assert torch.equal(asked(model), answer)
    if not EDITORS[name].weights:
        for write in (edit.merge, edit.to_peft):
            with pytest.raises(EditError, match="cannot hold"):
                write(model, tmp_path / "other")
        assert not (tmp_path / "other").exists()
        return
    edit.merge(model, tmp_path / "merged")
    merged = type(model.module).from_pretrained(tmp_path / "merged").eval()
    assert torch.equal(merged(**inputs).logits, expected)
    edit.to_peft(model, tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(model.module, tmp_path / "adapter")
    assert torch.allclose(adapted(**inputs).logits, expected, rtol=0, atol=1e-6 * max(1.0, float(expected.abs().max())))


@pytest.mark.parametrize("name", EDITORS)
def test_the_default_preset_is_one_that_the_editor_takes(name: str, tiny_tokenizer: Any) -> None:
    model, _ = tiny("llama", tiny_tokenizer)
    editor = EDITORS[name]
    default = editor.presets["default"].settings
    assert isinstance(default, editor.settings)
    assert resolved(model, None, {"default": editor.presets["default"]}, {}) == default
    assert editor.options(asdict(default)) == asdict(default)
    assert f"| default | {editor.layers_taken(default)} |" in editor.table()


def test_settings_that_are_none_are_named(tiny_tokenizer: Any) -> None:
    model, _ = tiny("llama", tiny_tokenizer)
    for editor in EDITORS.values():
        with pytest.raises(NeuronwiseError, match="magic"):
            editor.function(model, FACTS[0], magic=3)
        with pytest.raises(NeuronwiseError, match="no fact"):
            editor.function(model, [])


@pytest.fixture(scope="module")
def several(tiny_tokenizer: Any) -> tuple[Model, list[Edit], dict[str, Tensor]]:
    """One model in bfloat16 with an edit of each editor, and random ones that share neurons with them."""
    model, _ = tiny("llama", tiny_tokenizer, torch.bfloat16)
    edits = [edited(name, model) for name in EDITORS]
    edits += [random_edit(model, 1), random_edit(model, 2, neurons=30), random_edit(model, 3, low_rank=True)]
    return model, edits, weights(model)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), length=st.integers(4, 14))
def test_any_order_of_applying_and_reverting_ends_at_the_start(several: Any, seed: int, length: int) -> None:
    model, edits, before = several
    chance, present = random.Random(seed), set[int]()
    for _ in range(length):
        number = chance.randrange(len(edits))
        if number in present:
            edits[number].revert(model)
        else:
            edits[number].apply(model)
        present ^= {number}
        assert len(model.edits) == len(present)
        changed = any(edits[one].deltas for one in present)
        assert same_weights(before, weights(model)) == (not changed)
    for number in chance.sample(sorted(present), len(present)):
        edits[number].revert(model)
    assert same_weights(before, weights(model))


@pytest.mark.parametrize("editor", EDITORS)
def test_what_is_no_fact_no_model_and_no_settings_is_said(editor: str, tiny_model: Any) -> None:
    edit, fact = EDITORS[editor].function, Fact("the capital of {} is", "France", "house")
    for wrong in ("France", ["France"], {"prompt": "the"}, None):
        with pytest.raises(NeuronwiseError, match="takes a Fact"):
            edit(tiny_model, wrong)
    with pytest.raises(NeuronwiseError, match=r"neuronwise\.load"):
        edit("tiny", fact)
    with pytest.raises(NeuronwiseError, match="These settings are dict"):
        edit(tiny_model, fact, {"steps": 3})
    with pytest.raises(NeuronwiseError, match="The subject of a fact is a text"):
        Fact("the {}", None, "x")  # type: ignore[arg-type]
