"""An edit is known by what it does to the weights of the innermost module, whoever wraps it and whatever is changed."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

import neuronwise as nw
from edits import random_edit, tiny, weights
from neuronwise.edit import EDITORS, Edit, column_norms, load_edit
from neuronwise.errors import EditError
from neuronwise.model.model import Model


def same(model: Model, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in weights(model).items())


def wrapped(model: Any, by: str) -> Any:
    if by == "compile":
        return nw.Model(cast(Any, torch.compile(model.module)), model.processor)
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"])
    return nw.Model(get_peft_model(model.module, config), model.processor)


@pytest.mark.parametrize("by", ["compile", "peft"])
def test_wrappers_share_their_edits(model: Any, by: str) -> None:
    edit, before = random_edit(model), {n: v.clone() for n, v in model.module.named_parameters()}
    edit.apply(model)
    outer = wrapped(model, by)
    assert outer.edits == (edit,)
    with pytest.raises(EditError, match="applied already"):
        edit.apply(outer)
    edit.revert(outer)
    assert model.edits == ()
    now = {name.replace("base_layer.", ""): value for name, value in model.module.named_parameters()}
    assert all(torch.equal(now[name], value) for name, value in before.items())


def test_the_same_changes_are_the_same_edit(model: Any, tmp_path: Any) -> None:
    edit = random_edit(model)
    annotated = Edit(edit.deltas, {**edit.record, "note": "mine"}, edit.norms)
    edit.save(tmp_path / "edit")
    edit.apply(model)
    for same_edit in (annotated, load_edit(tmp_path / "edit"), edit + random_edit(model, seed=1)):
        with pytest.raises(EditError, match="applied already"):
            same_edit.apply(model)
    annotated.revert(model)
    assert model.edits == ()


def test_edits_that_change_nothing_are_not_taken_for_each_other(model: Any) -> None:
    before, real = weights(model), random_edit(model)
    still = [replace(delta, left=torch.zeros_like(delta.left)) for delta in real.deltas]
    first, second = (Edit(tuple(still), {"request": name}) for name in ("cat", "dog"))
    parts = Edit((still[0], *real.deltas[1:]), {"request": "bear"})  # one of its layers does not move
    for edit in (first, second, parts):
        edit.apply(model)
    with pytest.raises(EditError, match="applied already"):
        second.apply(model)
    second.revert(model)
    assert model.edits == (first, parts)
    for edit in (first, parts):
        edit.revert(model)
    assert model.edits == ()
    assert same(model, before)


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_that_holds_the_edit_does_not_take_it_again(
    model: Any, tmp_path: Any, dtype: torch.dtype, low_rank: bool
) -> None:
    model.module.to(dtype)
    edit = random_edit(model, low_rank=low_rank)
    other = random_edit(model, seed=1)
    edit.merge(model, tmp_path / "merged")
    merged = nw.load(tmp_path / "merged")
    for again in (edit, Edit(edit.deltas, {}, edit.norms)):
        with pytest.raises(EditError, match="hold this edit already"):
            again.apply(merged)
    other_norms = Edit(other.deltas, other.record, column_norms(merged, other.deltas))
    with other_norms.applied(merged):
        pass
    edit.apply(model)
    edit.revert(model)


@pytest.mark.parametrize("inside", [False, True])
def test_an_adapter_is_merged_before_the_edit_is(model: Any, tmp_path: Any, inside: bool) -> None:
    edit, outer = random_edit(model), wrapped(model, "peft")  # what it would write is the adapter alone
    with pytest.raises(EditError, match=r"Merge the adapter first: model\.merge_and_unload\(\)"):
        edit.merge(nw.Model(outer.module.base_model.model, model.processor) if inside else outer, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    plain = nw.Model(outer.module.merge_and_unload(), model.processor)
    edit.merge(plain, tmp_path / "merged")
    with edit.applied(plain):
        assert same(plain, weights(nw.load(tmp_path / "merged")))


def test_compiled_code_sees_memories_come_and_go(model: Any) -> None:
    compiled = cast(Any, torch.compile(model.module, backend="eager"))
    ids = torch.tensor([model.tokenizer("the cat sits on")["input_ids"]])
    before = compiled(ids).logits
    edit = nw.edit.grace(model, nw.Fact("the {} sits on", "cat", "red"), steps=1, radius=1e8)
    with edit.applied(model):
        inside = model.module(ids).logits
        assert torch.equal(compiled(ids).logits, inside)
    assert not torch.equal(inside, before)
    assert torch.equal(compiled(ids).logits, before)


@pytest.mark.parametrize("editor", ["fine", "grace"])
def test_a_module_is_pickled_with_its_edits(model: Any, tmp_path: Any, editor: str) -> None:
    before, fact = weights(model), nw.Fact("the {} sits on", "cat", "red")
    changes: dict[str, Any] = {"freeze_last": 0} if editor == "fine" else {}
    edit = EDITORS[editor].function(model, fact, steps=1, **changes)
    edit.apply(model)
    torch.save(model.module, tmp_path / "module")
    copied = nw.Model(torch.load(tmp_path / "module", weights_only=False), model.processor)
    edit.revert(model)
    ids = {"input_ids": torch.tensor([[3, 4, 5]])}
    edited = copied.forward(ids)
    edit.revert(copied)
    assert (copied.edits, same(copied, before)) == ((), True)
    assert torch.equal(copied.forward(ids), model.forward(ids))
    with edit.applied(model):
        assert torch.equal(model.forward(ids), edited)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_moved_while_an_edit_is_in(model: Any, dtype: torch.dtype) -> None:
    wanted = copy.deepcopy(model.module).to(dtype).state_dict()
    edit = random_edit(model)
    edit.apply(model)
    model.module.to(dtype)
    edit.revert(model)
    assert all(torch.equal(value, wanted[name]) for name, value in model.module.state_dict().items())


def test_training_while_an_edit_is_in_is_said(model: Any) -> None:
    before, edit = weights(model), random_edit(model)
    edit.apply(model)
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.add_(0.01)
    trained = weights(model)
    with pytest.raises(EditError, match="changed again while it was in"):
        edit.revert(model)
    assert same(model, trained)
    edit.revert(model, force=True)
    changed = {name for name, value in weights(model).items() if not torch.equal(value, trained[name])}
    assert changed == {name for name in before if "down_proj" in name and name.split(".")[2] in ("1", "2")}
    units = edit.deltas[0].units
    assert units is not None
    layer, unit = edit.deltas[0].layer, int(units[0])
    held = f"model.layers.{layer}.mlp.down_proj.weight"
    assert torch.equal(weights(model)[held][:, unit], before[held][:, unit])


def test_all_edits_are_listed_and_reverted(model: Any) -> None:
    before = weights(model)
    edits = [random_edit(model, seed=seed) for seed in range(3)]
    for edit in edits:
        edit.apply(model)
    assert model.edits == tuple(edits)
    nw.revert_all(model)
    assert model.edits == ()
    assert same(model, before)


def test_an_edit_made_beside_others_says_so(model: Any) -> None:
    fact = nw.Fact("the {} is", "cat", "red")
    assert "made_with" not in nw.fine(model, fact, steps=1, freeze_last=0).record
    with random_edit(model).applied(model):
        assert nw.fine(model, fact, steps=1, freeze_last=0).record["made_with"] == ["random"]


def test_experts_too() -> None:
    model, _ = tiny("mixtral")
    before, edit = weights(model), random_edit(model)
    edit.apply(model)
    model.module.to(torch.float64)
    edit.revert(model)
    assert all(torch.equal(value, before[name].double()) for name, value in model.module.state_dict().items())
