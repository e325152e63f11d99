"""Neurons at half of their activation, or another share, while a study looks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from neuronwise.intervene import scale
from neuronwise.study.interventions import Intervention, Scene
from neuronwise.study.store import Row


@dataclass(frozen=True)
class Halving:
    """``times``: how often activations are halved."""

    times: int = 1


@contextlib.contextmanager
def halved(scene: Scene, settings: Halving) -> Iterator[Row]:
    """Within the body the neurons are scaled; what it yields is noted in every row."""
    factor = 0.5**settings.times
    with scale(scene.model, scene.neurons, factor):
        yield {"factor": factor}


INTERVENTION = Intervention("halve", halved, Halving)
