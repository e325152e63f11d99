"""Attribution patching: how the logit would fall if each activation were that of a twin run, to first order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neuronwise.images import ImageLike
from neuronwise.locate.activation_difference import differences
from neuronwise.locate.contrast import Contrast, contrasted
from neuronwise.locate.method import Method
from neuronwise.locate.positions import Positions, PositionScores, rows_of, summed, times_gradients
from neuronwise.locate.twin import twin_of
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import written_gradients

if TYPE_CHECKING:
    from neuronwise.model import Model


def attribution_patching(
    model: Model,
    run: Run,
    targets: Sequence[Target],
    inpainted: ImageLike | None = None,
    *,
    counterfactual: str | None = None,
    positions: Positions = "all",
    contrast: Contrast = None,
) -> list[Iterator[PositionScores]]:
    """(a − a') · ∂y_t/∂a at each of ``positions``; a' is the activation in the twin run, y_t the run's logit.

    The twin is the run with another photo (``inpainted``) or another prompt of as many tokens (``counterfactual``), the
    same output forced. A high score is a neuron without which, as far as the gradient tells, the logit falls.
    ``contrast`` as for ``contribution``. Two forward passes and a backward one.
    """
    twin = twin_of(model, run, inpainted, counterfactual)
    readouts = [(run.row(target.position), contrasted(model, run, target, contrast)) for target in targets]
    written = written_gradients(model, run.forced_inputs(), readouts, direct=False)
    return [
        times_gradients(differences(run, twin, rows_of(run, target, positions)), gradients)
        for target, gradients in zip(targets, written.gradients, strict=True)
    ]


METHOD = Method(
    "attribution_patching",
    summed(attribution_patching),
    meaning="how the logit of {token} would fall, to first order, with the activation of the other run",
    source="Nanda 2023 (attribution patching); Syed et al. 2023 (arXiv 2310.10348)",
    needs="twin",
    by_position=attribution_patching,
)
