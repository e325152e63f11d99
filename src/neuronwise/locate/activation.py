"""The activation itself as a score: a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from neuronwise.locate.gradient import rows_of
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model.run import Run, Target

if TYPE_CHECKING:
    from neuronwise.model import Model


def activation(
    model: Model, run: Run, targets: Sequence[Target], *, positions: str = "predicting", activation: str = "ffn"
) -> list[Scores]:
    """a at the predicting position, or its mean over the image's positions ([NAM]'s baseline).

    It does not look at the target's token, only at where it is predicted. A routed expert's neuron counts with its
    router weight.
    """
    results = []
    for target in targets:
        rows = rows_of(run, target, positions)
        acts = run.activations(target.position, activation) if positions == "predicting" else run.rows(rows, activation)
        scores = Scores()
        for layer, values in acts.dense.items():
            scores.values[layer, None] = values.float().mean(0)
        for layer, routed in acts.routed.items():
            for row in routed:
                for expert, record in row.items():
                    place = (layer, expert)
                    share = record.written / len(routed)
                    scores.values[place] = scores.values.get(place, torch.zeros_like(share)) + share
        scores.activations = dict(scores.values)
        results.append(scores)
    return results


METHOD = Method(
    "activation",
    activation,
    meaning="how strongly each neuron fires where the model predicts {token}",
    source="Fang et al. 2024 (NeurIPS), as a baseline",
)
