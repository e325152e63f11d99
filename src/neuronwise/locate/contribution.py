"""Contribution: what each neuron adds to the target's logit at the position that predicts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate import heads
from neuronwise.locate.baseline import SELF, Baseline, resolved
from neuronwise.locate.contrast import above_all, contrasted
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.locate.shares import direct_gradients
from neuronwise.model.lengths import vector_lengths
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import weighted
from neuronwise.model.writers import Site, Writer

if TYPE_CHECKING:
    from neuronwise.model import Model

MOST_FOCUS = 10  # d to this power is still a float32 for every width that there is


def contribution(
    model: Model,
    run: Run,
    targets: Sequence[Target],
    *,
    activation: str = "ffn",
    normalize: bool = False,
    contrast: Sequence[str | int] | int | None = None,
    baseline: Baseline | str | None = None,
    focus: float = 0.0,
) -> list[Scores]:
    """a[l,i,p] · ⟨U_t, v[l,i]⟩ for every neuron, p the position that predicts t ([MMN] eq. 4, [FiNE] eq. 3).

    ``activation``: "ffn", the input of W_down, or "gate", the gate's output alone as in [MMN]'s published code.
    ``normalize``: read through the final norm and everything else on the direct path, linearized at p, so that scores
    are exact shares of the logit before any soft cap (ours). ``contrast``: tokens whose mean score is subtracted, or
    a number k for the model's own top-k alternatives to the target at p (ours). A routed expert's neuron counts with
    its router weight; a gate behind a shared expert counts with ``normalize`` alone.

    ``baseline``: a − ā in place of a, ā the neuron's usual activation (ours): a ``Baseline``, the folder of one, or
    "self" (see ``Baseline.gather``). Then experts that the token was not routed to have scores too, of a = 0, and with
    ``normalize`` everything that is no neuron's surplus is ``Scores.usual``, so that scores still add up to the logit.

    ``focus``: times max(0, d · cos(v, r) · cos(v, w))^focus (ours), r what v is read by (the logit, or the contrast),
    w the target's own logit above the mean of all, d the length of v: a vector of random direction has a product of
    about 1, so neurons come first that write this token and little else. Scores then no longer add up; what each
    neuron adds stands beside them, as ``adds``.
    """
    if not 0 <= focus <= MOST_FOCUS:
        raise MethodError(f"focus is {focus}; give a number from 0 to {MOST_FOCUS}.")
    if normalize and activation != "ffn":
        raise MethodError("normalize gives shares of the logit, and only activation='ffn' adds up to it.")
    usual = resolved(model, baseline)
    if usual is not None and activation != "ffn":
        raise MethodError("A baseline holds means of activation='ffn'; leave it out for another activation.")
    weights = [contrasted(model, run, target, contrast) for target in targets]
    reads = [*weights, *map(above_all, targets)] if focus else weights
    written = None
    if normalize:
        readouts = [(target.position, weight) for target, weight in zip([*targets, *targets], reads, strict=False)]
        written = direct_gradients(model, run, readouts)
    directions = _by_unembedding(model, reads) if written is None else _along_the_direct_path(written.gradients)
    lengths = vector_lengths(model) if focus else None
    acts = [run.activations(target.position, activation) for target in targets]
    scores = [Scores() for _ in targets]
    for writer in model.writers:
        fired = [writer.fired(one) for one in acts]
        mean = None if usual is None else usual.mean(writer)
        if mean is not None:
            fired = [torch.zeros(writer.width) if a is None else a for a in fired]
        if any(a is not None for a in fired):
            along = directions(writer)
            read = writer.project(along)
            aimed = None if lengths is None else _aimed(lengths[writer], along, read).pow(focus)
            _score(writer, scores, fired, mean, read, aimed)
    if usual is not None and written is not None and not focus:
        for value, own in zip(written.values, scores, strict=True):
            own.usual = value - sum(float(values.sum()) for values in own.values())
    return scores


def _score(
    writer: Writer,
    scores: Sequence[Scores],
    fired: Sequence[Tensor | None],
    mean: Tensor | None,
    read: Tensor,
    aimed: Tensor | None,
) -> None:
    """Put one writer's neurons (width,) into each target's scores: a · ``read``, what they add, by ``aimed``."""
    for index, (own, a) in enumerate(zip(scores, fired, strict=True)):
        if a is not None:
            adds = (a if mean is None else a - mean) * read[index]
            own.put(writer, adds if aimed is None else adds * aimed[index], a, mean)
            if aimed is not None:
                own.adds[writer] = adds


def _aimed(lengths: Tensor, along: Tensor, read: Tensor) -> Tensor:
    """(T, width): d times the product of a value vector's cosines with (2 · T, d) directions, of one target each two.

    ``lengths`` (width,) are the value vectors', ``read`` (2 · T, width) their products with the directions. 0 where one
    cosine is negative and the other is not, and for a vector or direction of 0.
    """
    both = lengths * along.float().norm(dim=1, keepdim=True).cpu()
    what_it_adds, the_token = (read / both.clamp_min(1e-30)).chunk(2)
    return (along.shape[1] * what_it_adds * the_token).clamp_min(0)


def _by_unembedding(model: Model, weights: Sequence[Mapping[int, float]]) -> Callable[[Writer], Tensor]:
    """(T, d), the same for every writer: Σ weight · U_token of each target."""
    directions = torch.stack([weighted(model.unembedding, tokens) for tokens in weights])
    return lambda writer: directions


def _along_the_direct_path(gradients: Sequence[Mapping[Site, Tensor]]) -> Callable[[Writer], Tensor]:
    """(T, d) for a writer: the gradients where its writing lands, 0 where that is another branch."""
    return lambda writer: torch.stack([one.get(writer.site, torch.zeros(writer.hidden_size)) for one in gradients])


METHOD = Method(
    "contribution",
    contribution,
    heads=heads.contribution,
    meaning="what each neuron adds to the logit of {token}",
    source="Pan et al. 2024 (arXiv 2311.07470), eq. 4; Pan et al. 2025 (arXiv 2503.01090), eq. 3",
    records=True,
)
# Exact shares of the logit, over the model's other candidates: options for the neurons of one word.
SHARP: dict[str, Any] = {"contrast": 10, "normalize": True}
# The same over what each neuron usually does, of neurons that write little else: what ``find`` asks for by default.
SURPLUS: dict[str, Any] = {**SHARP, "baseline": SELF, "focus": 3.5}
