"""The benchmark of large models, on a tiny one: every task runs, is timed, and leaves the model alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edits import same, weights
from neuronwise.images import open_image


@pytest.fixture(scope="module")
def large(scripts: Any) -> Any:
    return scripts("large")


def test_every_task_runs_and_is_measured(large: Any, chelsea: Path) -> None:
    model = large.random_model("tiny", torch.float32, "cpu")
    before = weights(model)
    made = large.tasks(model, open_image(chelsea), large.made_up_fact(model), 4, ["knowledge_neurons"])
    names = ["generate", "find and heatmaps", "locate, normalized", "suppress", "swap", "knowledge_neurons",
             "apply and revert"]  # fmt: skip
    assert list(made) == names
    chosen = {name: made[name] for name in ("locate, normalized", "suppress", "swap", "apply and revert")}
    result = large.measure(model, chosen, repeats=1)
    assert all(row["seconds"][0] > 0 for row in result.values())
    assert result["swap"]["outcome"] == "10 steps"
    written = large.table(result, large.weight_bytes(model))
    assert all(name in written for name in chosen)
    assert same(before, weights(model))
