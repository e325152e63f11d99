"""Attribution patching with gradients averaged along the way from the twin run to the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.images import ImageLike
from neuronwise.locate.activation_difference import differences
from neuronwise.locate.contrast import Contrast, contrasted
from neuronwise.locate.method import Method
from neuronwise.locate.positions import Positions, PositionScores, rows_of, summed, times_gradients
from neuronwise.locate.twin import twin_of
from neuronwise.model.passes import edit_input, inputs_of, stop_before
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import Readout, written_gradients
from neuronwise.model.writers import Site

if TYPE_CHECKING:
    from neuronwise.model import Model


def eap_ig(
    model: Model,
    run: Run,
    targets: Sequence[Target],
    inpainted: ImageLike | None = None,
    *,
    counterfactual: str | None = None,
    positions: Positions = "all",
    contrast: Contrast = None,
    steps: int = 5,
) -> list[Iterator[PositionScores]]:
    """(a − a') · (1/m) Σ_{k=1..m} ∂y_t/∂a at h' + (k/m)(h − h'), at each of ``positions`` (Hanna et al. 2024, EAP-IG).

    h is what enters the first decoder layer in the run, h' in its twin (``inpainted`` or ``counterfactual``, as for
    attribution_patching); m is ``steps``. With one step it is attribution_patching.
    """
    if steps < 1:
        raise MethodError(f"steps is {steps}; the mean along the way needs 1 or more.")
    twin = twin_of(model, run, inpainted, counterfactual)
    readouts = [(run.row(target.position), contrasted(model, run, target, contrast)) for target in targets]
    means = _mean_gradients(model, run, twin, readouts, steps)
    return [
        times_gradients(differences(run, twin, rows_of(run, target, positions)), gradients)
        for target, gradients in zip(targets, means, strict=True)
    ]


def _mean_gradients(
    model: Model, run: Run, twin: Run, readouts: Sequence[Readout], steps: int
) -> list[dict[Site, Tensor]]:
    first = model.blocks[0].module
    start, end = entering(model, twin), entering(model, run)
    sums: list[dict[Site, Tensor]] = [{} for _ in readouts]
    for step in range(1, steps + 1):
        between = start + (step / steps) * (end - start)
        with edit_input(first, lambda hidden, between=between: between.to(hidden)):
            written = written_gradients(model, run.forced_inputs(), readouts, direct=False)
        for total, gradients in zip(sums, written.gradients, strict=True):
            for site, gradient in gradients.items():
                total[site] = total.get(site, torch.zeros_like(gradient)) + gradient / steps
    return sums


def entering(model: Model, run: Run) -> Tensor:
    """(1, rows, d): what enters the first decoder layer, embeddings of tokens and photo alike."""
    first = model.blocks[0].module
    with torch.no_grad(), inputs_of(first) as seen, stop_before(first):
        model.forward(run.forced_inputs(), rows=[-1])
    return seen[0].detach()


METHOD = Method(
    "eap_ig",
    summed(eap_ig),
    meaning="how the logit of {token} would fall with the activation of the other run, by integrated gradients",
    source="Hanna et al. 2024 (arXiv 2403.17806)",
    needs="twin",
    by_position=eap_ig,
)
