"""Activation difference: what each neuron loses when the object is taken out of the photo ([2S] stage 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.images import ImageLike
from neuronwise.locate.gradient import rows_of
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Place, Scores
from neuronwise.model.record import Activations
from neuronwise.model.run import Run, Target

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
        results.append(_difference(run.rows(rows), other.rows(rows), len(rows)))
    return results


def on_another_photo(model: Model, run: Run, image: ImageLike) -> Run:
    """The run with another photo in its prompt and the same output, forced token for token."""
    if run.image is None:
        raise MethodError("This run has no photo from which an object could be taken.")
    prompted = model.run(image, run.prompt, max_new_tokens=0, chat=run.chat)
    if prompted.prompted.input_ids != run.prompted.input_ids:
        raise MethodError("The inpainted photo makes another prompt than the photo; both must have the same size.")
    return Run(model, prompted.prompted, run.output_ids, [], prompted.image)


def _difference(seen: Activations, without: Activations, rows: int) -> Scores:
    scores = Scores()
    for layer, values in seen.dense.items():
        scores.values[layer, None] = (values.float() - without.dense[layer].float()).amax(0)
        scores.activations[layer, None] = values.float().mean(0)
    for layer in seen.routed:
        for place, differences in _routed(layer, seen, without, rows).items():
            scores.values[place] = torch.stack(differences).amax(0)
    return scores


def _routed(layer: int, seen: Activations, without: Activations, rows: int) -> dict[Place, list[Tensor]]:
    """Of an expert that only one of the photos was routed to, the other's activations are 0: it wrote nothing."""
    found: dict[Place, list[Tensor]] = {}
    for row in range(rows):
        one, two = seen.routed[layer][row], without.routed[layer][row]
        for expert in {**one, **two}:
            a, b = (side[expert].written if expert in side else None for side in (one, two))
            difference = a - b if a is not None and b is not None else a if a is not None else -b  # type: ignore[operator]
            found.setdefault((layer, expert), []).append(difference)
    return found


METHOD = Method(
    "activation_difference",
    activation_difference,
    meaning="how much less each neuron fires, where the model predicts {token}, without the object",
    source="Sato and Takagi 2025 (arXiv 2503.22941), eq. 3",
    needs="inpainted",
)
