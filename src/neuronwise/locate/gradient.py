"""Gradients of the target's logit with respect to activations, alone or times the activations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neuronwise.locate.contrast import Contrast, contrasted
from neuronwise.locate.method import Method
from neuronwise.locate.positions import Positions, PositionScores, firings, reduced, rows_of, times_gradients
from neuronwise.locate.scores import Scores
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import written_gradients

if TYPE_CHECKING:
    from neuronwise.model import Model


def gradient(
    model: Model, run: Run, targets: Sequence[Target], *, positions: Positions = "predicting", reduce: str = "max"
) -> list[Scores]:
    """∂y_t/∂a at the predicting position, or reduced over positions by max or sum ([NAM]); y_t is the logit."""
    return [reduced(parts, reduce) for parts in gradients(model, run, targets, positions=positions)]


def gradients(
    model: Model, run: Run, targets: Sequence[Target], *, positions: Positions
) -> list[Iterator[PositionScores]]:
    """∂y_t/∂a at each of ``positions``, times the router's weight for a routed expert's neuron."""
    return _times_factors(model, run, targets, positions, None, weights=True)


def gradient_activation(
    model: Model,
    run: Run,
    targets: Sequence[Target],
    *,
    positions: Positions | None = None,
    reduce: str = "max",
    contrast: Contrast = None,
) -> list[Scores]:
    """a ⊙ ∂y_t/∂a, reduced over positions by max ([SCH] eq. 2, [2S] eq. 4) or by sum.

    ``positions``: "image" (the default for a run with image tokens), "predicting" (the default without), "all" or
    numbers. ``contrast`` as for ``contribution``. The activation is W_down's input, for gated and ungated blocks alike
    ([SCH] takes Z before the non-linearity in ungated blocks).
    """
    if positions is None:
        positions = "image" if run.has_image_tokens else "predicting"
    found = gradient_activations(model, run, targets, positions=positions, contrast=contrast)
    return [reduced(parts, reduce) for parts in found]


def gradient_activations(
    model: Model, run: Run, targets: Sequence[Target], *, positions: Positions, contrast: Contrast = None
) -> list[Iterator[PositionScores]]:
    """a ⊙ ∂y_t/∂a at each of ``positions``."""
    return _times_factors(model, run, targets, positions, contrast, weights=False)


def _times_factors(
    model: Model, run: Run, targets: Sequence[Target], positions: Positions, contrast: Contrast, *, weights: bool
) -> list[Iterator[PositionScores]]:
    rows = [rows_of(run, target, positions) for target in targets]
    readouts = [(run.row(target.position), contrasted(model, run, target, contrast)) for target in targets]
    written = written_gradients(model, run.forced_inputs(), readouts, direct=False)
    return [
        times_gradients(firings(run, own, weights=weights), found)
        for own, found in zip(rows, written.gradients, strict=True)
    ]


GRADIENT = Method(
    "gradient",
    gradient,
    meaning="the gradient, by the neuron's activation, of the logit of {token}",
    source="Fang et al. 2024 (NeurIPS)",
    by_position=gradients,
)
GRADIENT_ACTIVATION = Method(
    "gradient_activation",
    gradient_activation,
    meaning="activation × gradient of the logit of {token}",
    source="Schwettmann et al. 2023 (arXiv 2308.01544), eq. 2; Sato and Takagi 2025 (arXiv 2503.22941), eq. 4",
    by_position=gradient_activations,
)
