"""The interventions of this study: activations changed in passing, or an edit that is taken out again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from neuronwise.edit.swap import SwapSettings, swap
from neuronwise.edit.verdict import without_verdict
from neuronwise.errors import MethodError
from neuronwise.intervene import mean_ablate, scale, suppress
from neuronwise.study.interventions import Intervention, Scene
from neuronwise.study.store import Row


@dataclass(frozen=True)
class Nothing:
    """No settings."""


@dataclass(frozen=True)
class Scaling:
    """``factor``: what activations are multiplied by."""

    factor: float

    def __post_init__(self) -> None:
        if self.factor < 0:
            raise MethodError(f"factor is {self.factor}; it must be 0 or more.")


@contextlib.contextmanager
def _suppressed(scene: Scene, settings: Nothing) -> Iterator[Row]:
    with suppress(scene.model, scene.neurons):
        yield {}


@contextlib.contextmanager
def _scaled(scene: Scene, settings: Scaling) -> Iterator[Row]:
    with scale(scene.model, scene.neurons, settings.factor):
        yield {}


@contextlib.contextmanager
def _mean_ablated(scene: Scene, settings: Nothing) -> Iterator[Row]:
    with mean_ablate(scene.model, scene.neurons, scene.means()):
        yield {}


@contextlib.contextmanager
def _swapped(scene: Scene, settings: SwapSettings) -> Iterator[Row]:
    """``swap`` by the runs that name the concept by its commonest word.

    Its loss is linear, so one step takes random neurons exactly as far as the others had to be moved.
    """
    assert scene.target is not None
    if scene.moved is not None:
        settings = replace(settings, step=scene.moved, cap=scene.moved, steps=1, beta=0.0, fewer=0)
    words = [word.lower() for word in scene.words]
    source = max(dict.fromkeys(words), key=words.count)
    runs = [run for run, word in zip(scene.runs, words, strict=True) if word == source]
    with without_verdict():  # captions of every photo are measured
        edit = swap(scene.model, runs, source, scene.target, settings, neurons=scene.neurons)
    with edit.applied(scene.model):
        yield {name: edit.record.get(name) for name in ("norm", "steps", "success", "enough")}


SUPPRESS = Intervention("suppress", _suppressed, Nothing)
SCALE = Intervention("scale", _scaled, Scaling)
MEAN_ABLATE = Intervention("mean_ablate", _mean_ablated, Nothing)
SWAP = Intervention("swap", _swapped, SwapSettings, decides=("top", "method", "options", "agree"), swaps=True)
