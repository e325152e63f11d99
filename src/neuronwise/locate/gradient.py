"""Gradients of the target's logit with respect to activations, alone or times the activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import written_gradients
from neuronwise.model.writers import Site

if TYPE_CHECKING:
    from neuronwise.model import Model

POSITIONS = ("predicting", "image", "all")


def gradient(model: Model, run: Run, targets: Sequence[Target], *, positions: str = "predicting") -> list[Scores]:
    """∂y_t/∂a at the predicting position, or its maximum over image or all positions ([NAM]); y_t is the logit."""
    return _gradient_scores(model, run, targets, positions, times_activation=False)


def gradient_activation(
    model: Model, run: Run, targets: Sequence[Target], *, positions: str | None = None
) -> list[Scores]:
    """a ⊙ ∂y_t/∂a, reduced over positions by max ([SCH] eq. 2, [2S] eq. 4).

    ``positions``: "image" (the default for a run with image tokens), "predicting" (the default without) or "all".
    The activation is W_down's input, for gated and ungated blocks alike ([SCH] takes Z before the non-linearity in
    ungated blocks).
    """
    if positions is None:
        positions = "image" if run.has_image_tokens else "predicting"
    return _gradient_scores(model, run, targets, positions, times_activation=True)


def rows_of(run: Run, target: Target, positions: str) -> list[int]:
    """The rows of the run's full sequence that a method looks at; raises ``MethodError`` for an unknown choice."""
    if positions == "predicting":
        return [run.row(target.position)]
    if positions == "image":
        return run.image_positions.tolist()
    if positions == "all":
        return list(range(run.length + 1 + run.row(target.position)))
    raise MethodError(f"positions={positions!r} is unknown; choose one of {', '.join(POSITIONS)}.")


def _gradient_scores(
    model: Model, run: Run, targets: Sequence[Target], positions: str, times_activation: bool
) -> list[Scores]:
    readouts = [(run.row(target.position), {target.token_id: 1.0}) for target in targets]
    written = written_gradients(model, run.forced_inputs(), readouts, direct=False)
    return [
        position_scores(model, run, gradients, rows_of(run, target, positions), times_activation)
        for target, gradients in zip(targets, written.gradients, strict=True)
    ]


def position_scores(
    model: Model,
    run: Run,
    gradients: Mapping[Site, Tensor],
    rows: list[int],
    times_activation: bool,
    reduce: Literal["max", "sum"] = "max",
) -> Scores:
    """∂y/∂a = W_downᵀ · ∂y/∂(what is written), row by row, reduced by ``reduce`` over ``rows``.

    The chain rule through the linear writer is exact and needs gradients of width d, not f.
    """
    acts = run.rows(rows)
    scores = Scores()
    for writer in model.writers:
        fired = writer.fired_rows(acts)
        if not fired.rows:
            continue
        values = torch.zeros_like(fired.values)
        if writer.site in gradients:  # else it writes into another branch
            read = writer.project(gradients[writer.site][[rows[at] for at in fired.rows]])
            values = (fired.values if times_activation else fired.weights.unsqueeze(1)) * read
        # An expert's activation is that of the last row that was routed to it.
        reduced = values.sum(0) if reduce == "sum" else values.amax(0)
        scores.put(writer, reduced, fired.values.mean(0) if writer.expert is None else fired.values[-1])
    return scores


GRADIENT = Method(
    "gradient",
    gradient,
    meaning="the gradient, by the neuron's activation, of the logit of {token}",
    source="Fang et al. 2024 (NeurIPS)",
)
GRADIENT_ACTIVATION = Method(
    "gradient_activation",
    gradient_activation,
    meaning="activation × gradient of the logit of {token}",
    source="Schwettmann et al. 2023 (arXiv 2308.01544), eq. 2; Sato and Takagi 2025 (arXiv 2503.22941), eq. 4",
)
