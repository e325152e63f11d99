"""What an edit changed, in words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from edits import random_edit, weights
from neuronwise.edit import Delta, Edit, changed_neurons
from neuronwise.errors import EditError
from shell import shell


@pytest.fixture
def edit(model: Any) -> nw.Edit:
    """Unit 5 of layer 1 is turned around, unit 7 grows by a tenth; a low-rank part touches unit 3 of layer 2 alone."""
    vectors = {layer: model.blocks[layer].value_vectors.detach() for layer in (1, 2)}
    narrow = torch.stack([-2 * vectors[1][:, 5], 0.1 * vectors[1][:, 7]], dim=1)
    right = torch.zeros(1, vectors[2].shape[1])
    right[0, 3] = 0.5
    path = model.writers[0].path
    return Edit(
        (Delta(1, path, narrow, units=torch.tensor([5, 7])), Delta(2, path, vectors[2][:, 3:4].clone(), right=right))
    )


def test_neurons_come_by_how_much_of_their_vector_changes(model: Any, edit: nw.Edit) -> None:
    before = weights(model)
    found = changed_neurons(model, edit, k=3)
    assert [str(one.neuron) for one in found] == ["L1.U5", "L2.U3", "L1.U7"]
    assert [one.size for one in found] == pytest.approx([2, 0.5, 0.1], rel=1e-4)
    turned, longer, _ = found
    assert (turned.before.raises, turned.before.lowers) == (turned.after.lowers, turned.after.raises)
    assert longer.before == longer.after
    assert turned.before.raises == nw.decode(model, "L1.U5", 3)
    with edit.applied(model):
        assert changed_neurons(model, edit, 1, k=3) == found[:1]
        assert edit.applied_to(model)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    with pytest.raises(EditError, match="layers 0 to"):
        changed_neurons(model, Edit((Delta(9, edit.deltas[0].path, edit.deltas[0].left, units=torch.tensor([5, 7])),)))


def test_edits_stay_as_they_are_to_the_bit(model: Any) -> None:
    edits = [random_edit(model, seed=seed, low_rank=True) for seed in (1, 2, 3)]
    for edit in edits:
        edit.apply(model)
    carried = weights(model)
    for edit in (edits[0], edits[1] + edits[2]):
        with contextlib.suppress(EditError):  # parts of the sum are in already
            changed_neurons(model, edit, 1, k=3)
        assert model.edits == tuple(edits)
        assert all(torch.equal(value, carried[name]) for name, value in weights(model).items())


def test_the_shell_shows_it(tiny_folder: Path, tmp_path: Path) -> None:
    fact = ("edit", "fact", "--prompt", "the capital of {} is", "--subject", "France", "--target", "house")
    shell(*fact, "--set", "freeze_last=1", "--set", "rate=0.1", "-m", tiny_folder, "--out", tmp_path / "edit")
    asked = ("edit", "diff", tmp_path / "edit", "-m", tiny_folder, "--top", 3, "-k", 2)
    content = json.loads(shell(*asked, "--json").stdout)
    assert content["schema"] == "neuronwise.edit-diff/1"
    sizes = [row["size"] for row in content["neurons"]]
    assert len(sizes) == 3 <= content["changed"]
    assert sizes == sorted(sizes, reverse=True)
    assert f"3 of {content['changed']} neurons changed" in shell(*asked).stdout
