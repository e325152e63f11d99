"""Evidence by relevance propagation: the relevance that arrives at the photo's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuronwise.locate.relp import METHOD as RELP
from neuronwise.locate.relp import readout_weights
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.relevance import relevance_rules
from neuronwise.model.run import Run, Target
from neuronwise.read.evidence.arriving import arriving
from neuronwise.read.evidence.method import EvidenceMethod


def relp(
    run: Run,
    targets: Sequence[Target],
    tokens: PhotoTokens,
    *,
    contrast: Sequence[str | int] | int | None = 10,
) -> Tensor:
    """h · ∂̃y_t/∂h at each image token h, ∂̃ the gradient under the rules of ``relevance_rules``, logits ([RelP], [TRL]).

    y_t is the target's logit before any soft cap, less the mean of those of ``contrast`` (tokens, or the number of the
    model's own alternatives; None for all tokens). One forward and one backward pass. Raises ``MethodError`` for an
    architecture with a mixer of positions that has no rule.
    """
    weights = [readout_weights(run.model, run, target, contrast) for target in targets]
    with relevance_rules(run.model):
        return arriving(
            run,
            [run.row(target.position) for target in targets],
            tokens,
            lambda raw, _: [weighted(row, own) for row, own in zip(raw, weights, strict=True)],
        )


def weighted(logits: Tensor, weights: Mapping[int, float]) -> Tensor:
    """A weighted sum of one row's logits (V,), in float32."""
    ids = torch.tensor(list(weights), device=logits.device)
    return (logits[ids].float() * torch.tensor(list(weights.values()), device=logits.device)).sum()


METHOD = EvidenceMethod(
    "relp", relp, meaning="relevance for the logit of {token} that arrives at each image token", unit="logits",
    source=RELP.source,
)  # fmt: skip
