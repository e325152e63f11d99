"""Contribution: what each neuron adds to the target's logit at the position that predicts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.contrast import contrasted
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.locate.shares import direct_shares
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Site, Writer

if TYPE_CHECKING:
    from neuronwise.model import Model


def contribution(
    model: Model,
    run: Run,
    targets: Sequence[Target],
    *,
    activation: str = "ffn",
    normalize: bool = False,
    contrast: Sequence[str | int] | int | None = None,
) -> list[Scores]:
    """a[l,i,p] · ⟨U_t, v[l,i]⟩ for every neuron, p the position that predicts t ([MMN] eq. 4, [FiNE] eq. 3).

    ``activation``: "ffn", the input of W_down, or "gate", the gate's output alone as in [MMN]'s published code.
    ``normalize``: read through the final norm and everything else on the direct path, linearized at p, so that scores
    are exact shares of the logit before any soft cap (ours). ``contrast``: tokens whose mean score is subtracted, or
    a number k for the model's own top-k alternatives to the target at p (ours). A routed expert's neuron counts with
    its router weight; a gate behind a shared expert counts with ``normalize`` alone.
    """
    if normalize and activation != "ffn":
        raise MethodError("normalize gives shares of the logit, and only activation='ffn' adds up to it.")
    weights = [contrasted(model, run, target, contrast) for target in targets]
    if normalize:
        readouts = [(target.position, weight) for target, weight in zip(targets, weights, strict=True)]
        directions = _along_the_direct_path(direct_shares(model, run, readouts).gradients)
    else:
        directions = _by_unembedding(model, weights)
    acts = [run.activations(target.position, activation) for target in targets]
    scores = [Scores() for _ in targets]
    for writer in model.writers:
        fired = [writer.fired(one) for one in acts]
        if any(a is not None for a in fired):
            for own, a, read in zip(scores, fired, writer.project(directions(writer)), strict=True):
                if a is not None:
                    own.put(writer, a * read, a)
    return scores


def _by_unembedding(model: Model, weights: Sequence[Mapping[int, float]]) -> Callable[[Writer], Tensor]:
    """(T, d), the same for every writer: Σ weight · U_token of each target."""
    unembedding = model.unembedding
    found = []
    for tokens in weights:
        rows = unembedding[list(tokens)].float()
        found.append((rows * torch.tensor(list(tokens.values()), device=rows.device)[:, None]).sum(0))
    directions = torch.stack(found)
    return lambda writer: directions


def _along_the_direct_path(gradients: Sequence[Mapping[Site, Tensor]]) -> Callable[[Writer], Tensor]:
    """(T, d) for a writer: the gradients where its writing lands, 0 where that is another branch."""
    return lambda writer: torch.stack([one.get(writer.site, torch.zeros(writer.hidden_size)) for one in gradients])


METHOD = Method(
    "contribution",
    contribution,
    meaning="what each neuron adds to the logit of {token}",
    source="Pan et al. 2024 (arXiv 2311.07470), eq. 4; Pan et al. 2025 (arXiv 2503.01090), eq. 3",
)
# Exact shares of the logit, over the model's other candidates: options for the neurons of one word.
SHARP: dict[str, Any] = {"contrast": 10, "normalize": True}
