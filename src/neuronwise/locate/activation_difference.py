"""Activation difference: what each neuron loses when the object is taken out of the photo ([2S] stage 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from neuronwise.errors import MethodError
from neuronwise.images import ImageLike
from neuronwise.locate.gradient import rows_of
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model.activations import Activations
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Writer

if TYPE_CHECKING:
    from neuronwise.model import Model


def activation_difference(
    model: Model,
    run: Run,
    targets: Sequence[Target],
    inpainted: ImageLike,
    *,
    positions: str = "predicting",
) -> list[Scores]:
    """a(photo) − a(inpainted photo) with the same prompt and the same forced output ([2S] eq. 3).

    ``inpainted`` is the photo without the object. ``positions``: "predicting", "image" or "all"; over several the
    maximum counts. Raises ``MethodError`` for one that makes another prompt.
    """
    other = on_another_photo(model, run, inpainted)
    results = []
    for target in targets:
        rows = rows_of(run, target, positions)
        results.append(_difference(model.writers, run.rows(rows), other.rows(rows), len(rows)))
    return results


def on_another_photo(model: Model, run: Run, image: ImageLike) -> Run:
    """The run with another photo in its prompt and the same output, forced token for token."""
    if run.image is None:
        raise MethodError("This run has no photo from which an object could be taken.")
    prompted = model.run(image, run.prompt, max_new_tokens=0, chat=run.chat)
    if prompted.prompted.input_ids != run.prompted.input_ids:
        raise MethodError("The inpainted photo makes another prompt than the photo; both must have the same size.")
    return Run.of(model, prompted.prompted, run.output_ids, prompted.image)


def _difference(writers: Sequence[Writer], seen: Activations, without: Activations, rows: int) -> Scores:
    """The maximum over rows; of an expert that only one photo was routed to, the other's activations are 0."""
    scores = Scores()
    for writer in writers:
        here, there = writer.fired_rows(seen), writer.fired_rows(without)
        used = sorted({*here.rows, *there.rows})
        if used:
            difference = torch.zeros(rows, writer.width)
            difference[here.rows] += here.values
            difference[there.rows] -= there.values
            scores.put(writer, difference[used].amax(0), here.values.sum(0) / rows)
    return scores


METHOD = Method(
    "activation_difference",
    activation_difference,
    meaning="how much less each neuron fires, where the model predicts {token}, without the object",
    source="Sato and Takagi 2025 (arXiv 2503.22941), eq. 3",
    needs="inpainted",
)
