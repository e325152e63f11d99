"""Relevance: what each neuron passes on to the target's logit through all later layers, read as linear maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from neuronwise.locate.contrast import Contrast, contrasted
from neuronwise.locate.method import Method
from neuronwise.locate.positions import Positions, PositionScores, firings, rows_of, summed, times_gradients
from neuronwise.model.relevance import relevance_rules
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import written_gradients

if TYPE_CHECKING:
    from neuronwise.model import Model


def relp(
    model: Model, run: Run, targets: Sequence[Target], *, positions: Positions = "all", contrast: Contrast = None
) -> list[Iterator[PositionScores]]:
    """a ⊙ ∂̃y_t/∂a at each of ``positions``, ∂̃ the gradient under the rules of ``relevance_rules`` ([RelP], [TRL]).

    y_t is the target's logit before any soft cap, less the mean logit, or less the tokens of ``contrast``.
    ``positions``: "all" up to the predicting one, "predicting", "image" or numbers. One forward and one backward pass.
    Raises ``MethodError`` for an architecture with a module that has no rule.
    """
    rows = [rows_of(run, target, positions) for target in targets]
    readouts = [(run.row(target.position), readout_weights(model, run, target, contrast)) for target in targets]
    with relevance_rules(model):
        written = written_gradients(model, run.forced_inputs(), readouts, direct=False, capped=False)
    return [times_gradients(firings(run, own), found) for own, found in zip(rows, written.gradients, strict=True)]


def readout_weights(model: Model, run: Run, target: Target, contrast: Contrast) -> dict[int, float]:
    """The logit against the contrasted tokens, or without any against the mean of all."""
    if contrast is not None:
        return contrasted(model, run, target, contrast)
    weights = dict.fromkeys(range(model.vocabulary_size), -1.0 / model.vocabulary_size)
    weights[target.token_id] += 1.0
    return weights


METHOD = Method(
    "relp",
    summed(relp),
    meaning="relevance that the neuron passes on to the logit of {token}",
    source="Rezaei Jafari et al. 2025 (arXiv 2508.21258); Arora et al. 2026 (arXiv 2601.22594)",
    by_position=relp,
)
