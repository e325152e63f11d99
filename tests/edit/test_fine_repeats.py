"""A neuron that two target positions chose: learned once, or as in the published code twice."""

from __future__ import annotations

from typing import Any

import torch

import neuronwise as nw
from neuronwise.edit.delta import neurons_of

FACT = nw.Fact("the {} is", "cat", "red red red")
OPTIONS: dict[str, Any] = {
    "freeze_last": 0, "steps": 1, "gamma": 0.0, "alpha": 0.0, "beta": 0.0, "n": 90, "enough": 1.0, "rate": 1e-3
}  # fmt: skip


def test_repeats_move_a_neuron_as_often_as_it_was_chosen(model: Any) -> None:
    once, often = (nw.fine(model, FACT, repeats=repeats, **OPTIONS) for repeats in (False, True))
    counts = []
    for one, other in zip(once.deltas, often.deltas, strict=True):
        assert neurons_of(model, one) == neurons_of(model, other)
        moved = one.left.abs() > 0.999e-3  # Adam's first step is of one length, so each copy adds that length again
        factors = (other.left / one.left)[moved]
        counts += factors.round().unique().tolist()
        torch.testing.assert_close(factors, factors.round(), atol=1e-2, rtol=0)
    assert set(counts) <= {1.0, 2.0, 3.0}
    assert max(counts) > 1
