"""The least change under which a distractor is likelier: against another solver, and as the model then speaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edits import same, weights
from neuronwise.answers.naming import names
from neuronwise.edit import suppress
from neuronwise.edit.distractor import _Problem
from neuronwise.errors import MethodError, TargetError
from speakers import SPEAKERS, given


@pytest.mark.parametrize("seed", range(5))
def test_the_change_is_the_least_that_meets_all_bounds(seed: int) -> None:
    """Least distance programming by non-negative least squares (Lawson and Hanson 1974, ch. 23)."""
    optimize = pytest.importorskip("scipy.optimize")
    generator = torch.Generator().manual_seed(seed)
    pushes = torch.randn(4, 3, 5, generator=generator)
    root = torch.randn(3, 3, generator=generator)
    narrow = root @ root.T + torch.eye(3)
    bounds = torch.randn(4, generator=generator).double()
    found = _Problem(pushes, narrow).least(bounds).double()
    half = torch.linalg.cholesky(narrow.double())  # Δ = half · y, ‖y‖² is what is minimized
    rows = torch.einsum("ji,pjd->pid", half, pushes.double()).reshape(4, -1).numpy()
    stacked = np.vstack([rows.T, bounds.numpy()])
    aim = np.zeros(16)
    aim[-1] = 1
    weights_, _ = optimize.nnls(stacked, aim)
    rest = stacked @ weights_ - aim
    expected = half @ torch.tensor(-rest[:-1] / rest[-1]).reshape(3, 5)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert bool((torch.einsum("pid,id->p", pushes.double(), found) >= bounds - 1e-4).all())


@pytest.mark.parametrize("name", SPEAKERS)
def test_another_token_is_likelier_where_the_word_was_said(name: str, tiny_tokenizer: Any) -> None:
    model, run, word = given(name, tiny_tokenizer)
    before = weights(model)
    edit = suppress(model, run, word, top=30, along="distractor", margin=0.5, rounds=1)
    assert same(before, weights(model))
    record = edit.record
    assert record["positions"] == len(run.concept(word).occurrences)
    assert record["success"] is not any(names(text, word) for text in record["texts"])
    assert record["distractors"]
    with edit.applied(model):
        for occurrence in run.concept(word).occurrences:
            logits = model.forward(run.forced_inputs(occurrence.positions[0]), rows=[-1])[0, -1]
            others = [token for token in range(len(logits)) if token != occurrence.token_ids[0]]
            assert float(logits[others].max() - logits[occurrence.token_ids[0]]) >= 0.5 - 1e-2
    changed = {int(unit) for delta in edit.deltas for unit in delta.units}  # type: ignore[union-attr]
    assert changed <= {neuron_unit(address) for address in record["neurons"]}


def neuron_unit(address: str) -> int:
    """U of "L0.U3" or "L0.E1.U3"."""
    return int(address.rpartition("U")[2])


def test_a_distractor_of_ones_own(tiny_tokenizer: Any) -> None:
    model, run, word = given("gpt2", tiny_tokenizer)
    other = next(one for one in ("house", "red", "dog") if one != word.strip().lower())
    edit = suppress(model, run, word, top=30, along="distractor", distractor=other, rounds=1)
    assert [text.strip() for text in edit.record["distractors"]] == [other]
    with pytest.raises(TargetError, match="same token"):
        suppress(model, run, word, along="distractor", distractor=word)
    for changes in ({"distractor": other}, {"along": "distractor", "margin": 0.0}, {"along": "sideways"}):
        with pytest.raises(MethodError):
            suppress(model, run, word, **changes)  # type: ignore[arg-type]
