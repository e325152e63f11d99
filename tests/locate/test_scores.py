"""The best of many scores."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from families import tiny
from neuronwise.errors import MethodError
from neuronwise.locate import Scores, score_all
from neuronwise.locate.method import Method
from neuronwise.model import Model, Run, Target
from neuronwise.model.prompt import Prompted
from neuronwise.model.writers import Writer
from neuronwise.read.evidence.method import EvidenceMethod


@pytest.mark.parametrize("name", ["llama", "qwen2_moe"])
def test_very_many_are_the_same_as_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = tiny(name)
    run = Run(Model(network), Prompted("", False, inputs), [], [])
    scores = score_all(run.model, run, [Target(29, 0, "t")], "contribution")[0]
    one_by_one = scores.top(None)
    assert isinstance(one_by_one.members, tuple)
    flat = torch.cat([scores[writer] for writer in scores])
    assert [member.score for member in one_by_one] == flat.sort(descending=True).values.tolist()
    for member in one_by_one.members[:5]:
        assert member.score == scores.of(member.neuron)
        assert member.activation == scores.activation(member.neuron)
    monkeypatch.setitem(Scores.top.__globals__, "MANY", 3)
    columns = scores.top(None)
    assert not isinstance(columns.members, tuple)
    assert columns.members == one_by_one.members
    assert scores.top(3).members == one_by_one.members[:3]


WRITER = Writer(3, None, nn.Identity(), 0, 6, "mlp.down_proj", 4, (3, "mlp"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (torch.zeros(4), "(4,) float32"),
        (torch.zeros(1, 6), "(1, 6) float32"),
        (torch.tensor(1.0), "() float32"),
        (torch.zeros(6, dtype=torch.int64), "(6,) int64"),
        (np.zeros(6), "a ndarray"),
        (None, "None"),
    ],
)
def test_what_is_not_one_number_for_each_neuron_is_refused(wrong: Any, said: str) -> None:
    fits = torch.zeros(6)
    for what, values in {
        "scores": (wrong, fits),
        "activations": (fits, wrong),
        "baselines": (fits, fits, wrong),
    }.items():
        if what == "baselines" and wrong is None:
            continue  # a method without a baseline
        sentence = re.escape(f"{what} of L3.mlp.down_proj are {said}; put ")
        with pytest.raises(MethodError, match=rf"^{sentence}(a tensor )?\(6,\) float32\.$"):
            Scores().put(WRITER, *values)
    with pytest.raises(MethodError, match="scores of L3"):
        Scores()[WRITER] = wrong  # pyright: ignore
    with pytest.raises(MethodError, match="scores of L3"):
        Scores({WRITER: wrong})  # pyright: ignore
    with pytest.raises(MethodError, match="activations of L3"):
        Scores(activations={WRITER: wrong})  # pyright: ignore


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_numbers_become_float32(dtype: torch.dtype) -> None:
    scores = Scores()
    values = torch.arange(6, dtype=dtype, requires_grad=True)
    scores.put(WRITER, values, values, values)
    for table in (scores, scores.activations, scores.baselines):
        assert (table[WRITER].dtype, table[WRITER].requires_grad) == (torch.float32, False)
        assert table[WRITER].tolist() == [0, 1, 2, 3, 4, 5]
    assert [member.score for member in scores.top(2)] == [5, 4]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "None"),
        (Scores({WRITER: torch.zeros(6)}), "a Scores"),
        ([], "a list of 0"),
        ([Scores()], r"a list of 1 \(an empty Scores\)"),
        ([{WRITER: torch.zeros(6)}], r"a list of 1 \(dict\)"),
        ([Scores({WRITER: torch.zeros(6)})] * 2, r"a list of 2 \(Scores, Scores\)"),
    ],
)
def test_a_function_that_returns_anything_but_scores_is_named(returned: Any, said: str) -> None:
    network, inputs = tiny("llama")
    run = Run(Model(network), Prompted("", False, inputs), [], [])
    method = Method("loud", lambda model, run, targets: returned, "how loud for {token}")
    with pytest.raises(MethodError, match=rf"^loud must .* Scores for the target, in a list; it returned {said}\."):
        method.score(run.model, run, [Target(29, 0, "t")], {})
    if not isinstance(returned, list) or len(returned) < 2:
        with pytest.raises(MethodError, match=r"one Scores for each of the 3 targets; it returned"):
            method.score(run.model, run, [Target(29, 0, "t")] * 3, {})


@pytest.mark.parametrize("meaning", ["how loud for {tokn}", "for {token} or {0}", "for {}", "for {token", "for } it"])
def test_a_meaning_holds_no_field_but_the_token(meaning: str) -> None:
    for make in (lambda: Method("loud", len, meaning), lambda: EvidenceMethod("loud", torch.abs, meaning, "of 1")):
        with pytest.raises(MethodError, match=r"^The meaning of loud .*\{token\}"):
            make()
