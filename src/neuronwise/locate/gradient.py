"""Gradients of the target's logit with respect to activations, alone or times the activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model.blocks import Block, dense_weight, expert_weight
from neuronwise.model.record import Activations
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import Written, unit_path, written_gradients

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
    inputs = run.forced_inputs()
    written = written_gradients(model, inputs, readouts, direct=False)
    return [
        position_scores(model, run, target, written, index, rows_of(run, target, positions), times_activation)
        for index, target in enumerate(targets)
    ]


def position_scores(
    model: Model, run: Run, target: Target, written: Written, index: int, rows: list[int], times_activation: bool
) -> Scores:
    """∂y/∂a = W_downᵀ · ∂y/∂(what is written), row by row, reduced by max over ``rows``.

    The chain rule through the linear writer is exact and needs gradients of width d, not f.
    """
    acts = run.rows(rows)
    scores = Scores()
    for block in model.blocks:
        if block.dense and block.layer in acts.dense:
            gradients = torch.cat(
                [
                    _times_weight(written.gradients[index].get((block.layer, w.path)), rows, dense_weight(w))
                    for w in block.dense
                ],
                dim=1,
            )
            a = acts.dense[block.layer].float()
            scores.values[block.layer, None] = ((a * gradients) if times_activation else gradients).amax(0)
            scores.activations[block.layer, None] = a[-1] if len(rows) == 1 else a.mean(0)
        _add_routed(scores, block, acts, written, index, rows, times_activation)
    return scores


def _add_routed(
    scores: Scores, block: Block, acts: Activations, written: Written, index: int, rows: list[int], times: bool
) -> None:
    for at, row in enumerate(rows):
        for expert, record in (acts.routed[block.layer][at] if block.layer in acts.routed else {}).items():
            routed, local = block.expert(expert)
            gradient = written.gradients[index].get((block.layer, unit_path(block, block.routed.index(routed))))
            value = record.weight * _times_weight(gradient, [row], expert_weight(routed, local))[0]
            value = record.activation.float() * value if times else value
            place = (block.layer, expert)
            scores.values[place] = torch.maximum(scores.values[place], value) if place in scores.values else value
            scores.activations[place] = record.written


def _times_weight(gradient: Tensor | None, rows: list[int], weight: Tensor) -> Tensor:
    if gradient is None:
        return torch.zeros(len(rows), weight.shape[1])
    return (gradient[rows].to(weight.device) @ weight.float()).cpu()


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
