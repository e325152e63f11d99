"""One fact taken out of an edit of many: the rest changes what it changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from edits import weights
from neuronwise.edit import facts_in, rome, without
from neuronwise.errors import EditError
from shell import refused, shell

FACTS = [nw.Fact("the capital of {} is", subject, target) for subject, target in
         (("France", "house"), ("cat", "red"), ("dog", "blue"))]  # fmt: skip
QUICK: dict[str, Any] = {"freeze_last": 0, "steps": 2, "rate": 0.1}


@pytest.fixture
def model(tiny_folder: Path) -> nw.Model:
    return nw.load(tiny_folder)


def difference(model: nw.Model, edit: nw.Edit) -> dict[str, torch.Tensor]:
    before = {name: value.clone() for name, value in weights(model).items()}
    with edit.applied(model):
        return {name: value - before[name] for name, value in weights(model).items()}


def alike(model: nw.Model, one: nw.Edit, other: nw.Edit) -> bool:
    pairs = zip(difference(model, one).values(), difference(model, other).values(), strict=True)
    return all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_facts_learned_by_themselves_leave_each_other(model: nw.Model, number: int, tmp_path: Path) -> None:
    whole = nw.fine(model, FACTS, **QUICK)
    rest = [fact for place, fact in enumerate(FACTS) if place != number]
    left = without(whole, number)
    assert alike(model, left, nw.fine(model, rest, **QUICK))
    assert not alike(model, left, whole)
    assert [one["subject"] for one in facts_in(left)] == [fact.subject for fact in rest]
    expected = nw.fine(model, rest, **QUICK).record
    for name in ("request", "taught", "steps", "probabilities", "deltas_of"):
        assert left.record[name] == expected[name]
    assert "verdict" not in left.record
    left.save(tmp_path / "left")
    single = without(nw.load_edit(tmp_path / "left"), 0)
    assert alike(model, single, nw.fine(model, rest[1], **QUICK))
    assert single.record["request"]["subject"] == rest[1].subject
    with pytest.raises(EditError, match="only fact"):
        without(single, 0)
    with pytest.raises(EditError, match="3 facts; there is no number 4"):
        without(whole, 3)


def test_a_rank_of_rome_is_a_fact(model: nw.Model) -> None:
    settings: dict[str, Any] = {"layers": (1, 2), "v_num_grad_steps": 2, "mom2_adjustment": False}
    whole = rome(model, FACTS, **settings)
    first = without(without(whole, 2), 1)  # nothing before the first fact was in place
    assert alike(model, first, rome(model, FACTS[0], **settings))
    assert len(first.record["values"]) == 2
    kept = without(whole, 1)
    for delta, now in zip(whole.deltas, kept.deltas, strict=True):
        assert delta.right is not None
        part = delta.left[:, [0, 2]] @ delta.right[[0, 2]]
        assert now.right is not None
        torch.testing.assert_close(now.left @ now.right, part)


def test_sums_give_back_their_parts(model: nw.Model) -> None:
    one, two = nw.fine(model, FACTS[:2], **QUICK), nw.fine(model, FACTS[2], **QUICK)
    three = one + two + nw.fine(model, nw.Fact("the {} runs", "house", "in"), **QUICK)
    assert len(facts_in(three)) == 4
    assert alike(model, without(three, 3), one + two)
    assert alike(model, without(without(three, 3), 2), one)
    assert without(one + two, 2).record["request"] == one.record["request"]
    assert alike(model, without(one + two, 0), nw.fine(model, FACTS[1], **QUICK) + two)


def test_facts_learned_together_are_refused(model: nw.Model) -> None:
    from neuronwise.edit import fine_tune

    edit = fine_tune(model, FACTS, layer=1, steps=1)
    with pytest.raises(EditError, match="learned the 3 facts together"):
        without(edit, 1)
    old = nw.fine(model, FACTS[0], **QUICK) + edit
    record = {name: value for name, value in old.record.items() if name != "deltas_of"}
    with pytest.raises(EditError, match="saved before parts were kept"):
        without(nw.Edit(old.deltas, record, old.norms), 0)


def test_on_the_shell(tiny_folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": fact.prompt, "subject": fact.subject, "target_new": fact.target_new} for fact in FACTS]
    (tmp_path / "facts.json").write_text(json.dumps(rows))
    options = ("--set", "freeze_last=0", "--set", "steps=1", "-m", tiny_folder, "--out", tmp_path / "edit")
    shell("edit", "facts", tmp_path / "facts.json", "--form", "counterfact", *options)
    other = shell("edit", "facts", tmp_path / "facts.json", "--form", "zsre", *options[:-2], expect=2)
    assert "no field 'src'" in other.stderr
    told = refused("edit", "remove", tmp_path / "edit")
    assert "--fact N: 1: the capital of France is → house; 2: the capital of cat is → red; 3:" in told
    assert "--out" in refused("edit", "remove", tmp_path / "edit", "--fact", 2)
    done = shell("edit", "remove", tmp_path / "edit", "--fact", 2, "--out", tmp_path / "left", "--json")
    content = json.loads(done.stdout)
    assert content["removed"]["subject"] == "cat"
    assert [one["subject"] for one in content["facts"]] == ["France", "dog"]
    assert len(facts_in(nw.load_edit(tmp_path / "left"))) == 2
    shown = shell("edit", "remove", tmp_path / "left", "--fact", 1, "--out", tmp_path / "one").stdout
    assert "taken out: the capital of France is → house\nkept: the capital of dog is → blue" in shown
