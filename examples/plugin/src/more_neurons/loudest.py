"""Neurons by the size of their activation."""

from __future__ import annotations

from collections.abc import Sequence

from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model import Model, Run
from neuronwise.model.run import Target


def loudest(model: Model, run: Run, targets: Sequence[Target], *, power: float = 1.0) -> list[Scores]:
    """|a| to the ``power``, where the target is predicted."""
    results = []
    for target in targets:
        activations = run.activations(target.position)
        scores = Scores()
        for writer in model.writers:
            fired = writer.fired(activations)  # (width,) activations; None for an expert that did not fire
            if fired is not None:
                scores.put(writer, fired.abs() ** power, fired)
        results.append(scores)
    return results


METHOD = Method("loudest", loudest, meaning="how loud each neuron is where the model predicts {token}")
