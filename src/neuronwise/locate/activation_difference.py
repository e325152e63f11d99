"""Activation difference: what each neuron loses when the object is taken out of the photo ([2S] stage 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from neuronwise.errors import MethodError
from neuronwise.images import ImageLike
from neuronwise.locate.method import Method
from neuronwise.locate.positions import Positions, PositionScores, reduced, rows_of
from neuronwise.locate.scores import Scores
from neuronwise.model.run import Run, Target

if TYPE_CHECKING:
    from neuronwise.model import Model


def activation_difference(
    model: Model,
    run: Run,
    targets: Sequence[Target],
    inpainted: ImageLike,
    *,
    positions: Positions = "predicting",
    reduce: str = "max",
) -> list[Scores]:
    """a(photo) − a(inpainted photo) with the same prompt and the same forced output ([2S] eq. 3).

    ``inpainted`` is the photo without the object. ``positions``: "predicting", "image", "all" or numbers; over several
    the maximum counts, or with ``reduce="sum"`` the sum. Raises ``MethodError`` for one that makes another prompt.
    """
    found = activation_differences(model, run, targets, inpainted, positions=positions)
    return [reduced(parts, reduce) for parts in found]


def activation_differences(
    model: Model, run: Run, targets: Sequence[Target], inpainted: ImageLike, *, positions: Positions
) -> list[Iterator[PositionScores]]:
    """a(photo) − a(inpainted photo) at each of ``positions``."""
    other = on_another_photo(model, run, inpainted)
    return [differences(run, other, rows_of(run, target, positions)) for target in targets]


def on_another_photo(model: Model, run: Run, image: ImageLike) -> Run:
    """The run with another photo in its prompt and the same output, forced token for token."""
    if run.image is None:
        raise MethodError("This run has no photo from which an object could be taken.")
    prompted, picture = run.asked(image)
    if prompted.input_ids != run.prompted.input_ids:
        raise MethodError("The inpainted photo makes another prompt than the photo; both must have the same size.")
    return Run.of(model, prompted, run.output_ids, picture)


def differences(run: Run, other: Run, rows: Sequence[int]) -> Iterator[PositionScores]:
    """a(run) − a(other) at each row; of an expert that only one run was routed to, the other's activations are 0."""
    here, there = run.rows(list(rows)), other.rows(list(rows))
    for writer in run.model.writers:
        own, others = writer.fired_rows(here), writer.fired_rows(there)
        used = sorted({*own.rows, *others.rows})
        if used:
            fired, beside = (torch.zeros(len(rows), writer.width) for _ in range(2))
            fired[own.rows], beside[others.rows] = own.values, others.values
            yield PositionScores(writer, [rows[at] for at in used], (fired - beside)[used], fired[used])


METHOD = Method(
    "activation_difference",
    activation_difference,
    meaning="how much less each neuron fires, where the model predicts {token}, without the object",
    source="Sato and Takagi 2025 (arXiv 2503.22941), eq. 3",
    needs="inpainted",
    by_position=activation_differences,
)
