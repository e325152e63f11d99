"""A neuron turned up or down: what a model says by itself, with the neuron changed, and with random ones changed."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from neuronwise.neurons import Neuron

if TYPE_CHECKING:
    from neuronwise.locate import Baseline
    from neuronwise.model import Model, Run

CAPTION, ANSWER = 40, 16  # tokens that are generated about a photo, and after a text
LARGEST = 700.0  # whose exponential is still a number
MEASURING = "measuring what neurons usually do (once for a model)"
Watching = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Turn:
    """A neuron's activation is multiplied by ``factor``, or set to its mean where ``baseline`` is given; beside it
    those of ``randoms`` other neurons of its writer, drawn by ``seed``."""

    neuron: Neuron
    factor: float
    baseline: Baseline | None = None
    randoms: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What the model says: as it is ("before"), with the neuron changed, or with a random one changed.

    ``neuron`` is the one that was changed. ``times``: how many times as likely the first answer is as before; None for
    the first, and where that says nothing.
    """

    kind: Literal["before", "changed", "random"]
    text: str
    neuron: Neuron | None = None
    times: float | None = None

    def row(self) -> dict[str, str | float | None]:
        """As plain JSON values."""
        changed = None if self.neuron is None else str(self.neuron)
        return {"kind": self.kind, "text": self.text, "neuron": changed, "times": self.times}


def answers(run: Run, turn: Turn, watching: Watching) -> Iterator[Answer]:
    """What the model says, one after the other, the run's own text first.

    Each is made within ``watching(what is being done)``; between two the model is as it was. Raises ``NeuronError`` for
    a neuron that the model does not have, and what ``scale`` and ``mean_ablate`` raise.
    """
    model = run.model
    others = random_beside(model, turn.neuron, turn.randoms, turn.seed)
    yield Answer("before", run.text)
    usual = _log_prob(run)
    rows: list[tuple[Literal["changed", "random"], Neuron]] = [("changed", turn.neuron)]
    for kind, one in [*rows, *(("random", other) for other in others)]:
        with changed(model, one, turn.factor, turn.baseline), watching(f"asking again with {one} changed"):
            text, now = run.again(), _log_prob(run)
        times = None if usual is None or now is None else math.exp(min(now - usual, LARGEST))
        yield Answer(kind, text, one, times)


@contextlib.contextmanager
def changed(model: Model, neuron: Neuron, factor: float, baseline: Baseline | None) -> Iterator[None]:
    """Within the body a neuron is scaled, or with a baseline set to its mean."""
    from neuronwise.intervene import mean_ablate, scale

    with scale(model, neuron, factor) if baseline is None else mean_ablate(model, neuron, baseline):
        yield


def random_beside(model: Model, neuron: Neuron, count: int, seed: int) -> list[Neuron]:
    """``count`` other neurons of the same writer, drawn by ``seed``; fewer where it has no more."""
    others = [other for other in model.writer(neuron).neurons if other != neuron]
    return random.Random(seed).sample(others, min(count, len(others)))


def is_current(run: Run) -> bool:
    """Whether the model is still as it was when the run was made."""
    from neuronwise.model.state import state_of

    return run.state is not None and run.state.difference(state_of(run.model)) is None


def _log_prob(run: Run) -> float | None:
    """log p of what the run says, as the model is now; None where it says nothing."""
    if not run.output_ids:
        return None
    from neuronwise.answers.forced import read_forced

    (reading,) = read_forced(run.model, [(run.prompted.inputs, run.output_ids)])
    return reading.log_prob * len(run.output_ids)
