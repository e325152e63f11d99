"""The activation itself as a score: a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neuronwise.locate.method import Method
from neuronwise.locate.positions import Positions, rows_of
from neuronwise.locate.scores import Scores
from neuronwise.model.run import Run, Target

if TYPE_CHECKING:
    from neuronwise.model import Model


def activation(
    model: Model, run: Run, targets: Sequence[Target], *, positions: Positions = "predicting", activation: str = "ffn"
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
        for writer in model.writers:
            fired = writer.fired_rows(acts)
            if fired.rows:
                mean = fired.values.sum(0) / len(rows)
                scores.put(writer, mean, mean)
        results.append(scores)
    return results


METHOD = Method(
    "activation",
    activation,
    meaning="how strongly each neuron fires where the model predicts {token}",
    source="Fang et al. 2024 (NeurIPS), as a baseline",
)
