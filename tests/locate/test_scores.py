"""The best of many scores."""

from __future__ import annotations

import pytest
import torch

from families import tiny
from neuronwise.locate import Scores, score_all
from neuronwise.model import Model, Run, Target
from neuronwise.model.prompt import Prompted


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
