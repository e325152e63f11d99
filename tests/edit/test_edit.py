"""Edit objects: applied, reverted to the bit, composed, saved, merged, exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import families
import neuronwise as nw
from edits import random_edit, same, tiny, weights
from neuronwise.edit import Delta, load_edit, suppress_neurons
from neuronwise.errors import EditError, MethodError, NonFiniteError
from neuronwise.model.model import Model


def test_a_body_that_raises_leaves_no_edit() -> None:
    model, _ = tiny("llama")
    before = weights(model)
    with pytest.raises(RuntimeError, match="inside"), random_edit(model).applied(model):
        assert not same(before, weights(model))
        raise RuntimeError("inside")
    assert same(before, weights(model))


def test_a_sum_is_both(tmp_path: Path) -> None:
    model, inputs = tiny("llama")
    first, second = random_edit(model, 1), random_edit(model, 2)
    with first.applied(model), second.applied(model):
        assert model.edits == (first, second)
        assert repr(first).startswith("Edit(")
        assert len(repr(first)) < 100  # no numbers of its deltas
        both = model.module(**inputs).logits.detach()
    assert model.edits == ()
    with (first + second).applied(model):
        assert torch.allclose(model.module(**inputs).logits, both, atol=1e-5)
    twice = first + second + first  # whose parts are the same tensors
    twice.save(tmp_path / "twice")
    assert load_edit(tmp_path / "twice").fingerprint == twice.fingerprint


@pytest.mark.parametrize("low_rank", [False, True])
def test_save_and_load_is_the_identity(tmp_path: Path, low_rank: bool) -> None:
    model, inputs = tiny("llama")
    edit = random_edit(model, low_rank=low_rank)
    edit.save(tmp_path / "edit")
    loaded = load_edit(tmp_path / "edit")
    assert loaded.record == edit.record
    with edit.applied(model):
        logits = model.module(**inputs).logits.detach()
    with loaded.applied(model):
        assert torch.equal(model.module(**inputs).logits, logits)
    if not low_rank:
        assert sum(file.stat().st_size for file in (tmp_path / "edit").iterdir()) < 8000
    with pytest.raises(EditError, match="there already"):
        edit.save(tmp_path / "edit")


@pytest.mark.parametrize("name", ["gpt2", "llama", "llava"])
@pytest.mark.parametrize("low_rank", [False, True])
def test_the_adapter_of_peft_is_the_same(tmp_path: Path, name: str, low_rank: bool) -> None:
    peft = pytest.importorskip("peft")
    model, inputs = tiny(name)
    edit = random_edit(model, low_rank=low_rank) + random_edit(model, 5, neurons=2)
    with edit.applied(model):
        expected = model.module(**inputs).logits.detach()
    edit.to_peft(model, tmp_path / "adapter")
    adapted = peft.PeftModel.from_pretrained(model.module, tmp_path / "adapter")
    assert torch.allclose(adapted(**inputs).logits, expected, atol=1e-6 * float(expected.abs().max()) + 1e-6)


def test_merging_writes_an_ordinary_checkpoint(tiny_folder: Path, tmp_path: Path) -> None:
    model = nw.load(tiny_folder)
    before = weights(model)
    edit = random_edit(model)
    edit.merge(model, tmp_path / "merged")
    assert same(before, weights(model))
    run = nw.load(tmp_path / "merged").run(prompt="the cat sits", max_new_tokens=5)
    with edit.applied(model):
        assert model.run(prompt="the cat sits", max_new_tokens=5).output_ids == run.output_ids


def test_what_does_not_fit_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    model, _ = tiny("llama")
    edit = random_edit(model)
    before = weights(model)
    with pytest.raises(EditError, match="nothing to revert"):
        edit.revert(model)
    edit.apply(model)
    with pytest.raises(EditError, match="applied already"):
        edit.apply(model)
    edit.revert(model)
    other, _ = tiny("qwen3")
    with pytest.raises(EditError):
        edit.apply(other)
    stranger = Model(families.tiny("llama", seed=7)[0])
    with pytest.raises(EditError, match="not those that this edit was made for"):
        edit.apply(stranger)
    for wrong in ("llama", None):
        with pytest.raises(MethodError, match=r"neuronwise\.load"):
            edit.apply(wrong)  # type: ignore[arg-type]
        with pytest.raises(EditError):
            edit + wrong  # type: ignore[operator]
    with pytest.raises(EditError, match="not from None"):
        nw.load_edit(None)  # type: ignore[arg-type]
    assert same(before, weights(model))
    with pytest.raises(NonFiniteError):
        Delta(0, "mlp.down_proj", torch.full((4, 1), torch.nan), torch.tensor([0]))


def test_a_direction_alone_is_taken_out() -> None:
    model, _ = tiny("llama")
    direction = torch.randn(model.hidden_size)
    before = model.blocks[1].value_vectors[:, 3].clone()
    with suppress_neurons(model, nw.NeuronSet.of(["L1.U3"]), direction=direction).applied(model):
        after = model.blocks[1].value_vectors[:, 3].clone()
    unit = direction / direction.norm()
    assert float(after @ unit) == pytest.approx(0, abs=1e-5)
    assert torch.allclose(after, before - (before @ unit) * unit, atol=1e-5)


def test_an_edit_of_a_model_of_another_width_is_refused(tmp_path: Path) -> None:
    from neuronwise.edit import Edit
    from neuronwise.edit.ledger import column_norms

    model, _ = tiny("llama")
    delta = Delta(0, model.blocks[0].dense[0].path, torch.ones(model.hidden_size, 1), torch.tensor([0]))
    norms = {name: value[:-1] for name, value in column_norms(model, [delta]).items()}
    edit, before = Edit((delta,), {"model": "narrower"}, norms), weights(model)
    for refused in (lambda: edit.apply(model), lambda: edit.to_peft(model, tmp_path / "adapter")):
        with pytest.raises(EditError, match=r"not those that this edit was made for \(narrower\)"):
            refused()
    assert same(before, weights(model))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("left", "inner", "said"),
    [
        ((4, 2), {"units": (3,)}, "left (4, 2) and units (3,); give left (d, r) and units (r,)"),
        ((4, 2), {"right": (3, 6)}, "left (4, 2) and right (3, 6); give left (d, r) and right (r, f)"),
        ((4, 2), {"right": (2,)}, "left (4, 2) and right (2,); give left (d, r) and right (r, f)"),
        ((4,), {"units": (4,)}, "left (4,) and units (4,); give left (d, r) and units (r,)"),
    ],
)
def test_factors_that_do_not_belong_together_are_named_by_shape(
    left: tuple[int, ...], inner: dict[str, tuple[int, ...]], said: str
) -> None:
    with pytest.raises(EditError, match=re.escape(f"of layer 29 do not belong together: {said}.")):
        factors: dict[str, Any] = {name: torch.ones(shape) for name, shape in inner.items()}
        Delta(29, "mlp.down_proj", torch.ones(left), **factors)
