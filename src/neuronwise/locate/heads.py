"""Scores of attention heads: one number for each head of the decoder and one target."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.contrast import Contrast, contrasted
from neuronwise.locate.shares import NoShares, direct_shares
from neuronwise.model.heads import Attention, attention_of, edit_heads, headless, mixed, require_heads
from neuronwise.model.last_position import LastPosition
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import WriterGradients, weighted
from neuronwise.neurons import Head, Heads, HeadSet, ScoredHead, as_heads

if TYPE_CHECKING:
    from neuronwise.model import Model
    from neuronwise.model.passes import Change


@dataclass(frozen=True)
class HeadScores:
    """Scores (n,) float32 of all n heads of a model, for one target; ``notes`` say what has no heads."""

    heads: tuple[Head, ...]
    values: Tensor
    notes: tuple[str, ...] = field(default=())

    def top(self, count: int | None, record: Mapping[str, Any] | None = None) -> HeadSet:
        """The ``count`` heads (all for None) of highest score; ties broken by (layer, head)."""
        if count is not None and count < 1:
            raise MethodError(f"top is {count}; ask for 1 head or more.")
        best = torch.sort(self.values, descending=True, stable=True).indices[:count].tolist()
        return HeadSet(tuple(ScoredHead(self.heads[at], float(self.values[at])) for at in best), record or {})


def contribution(
    model: Model, run: Run, targets: Sequence[Target], *, normalize: bool = True, contrast: Contrast = None
) -> list[HeadScores]:
    """What each head adds to the target's logit at the position that predicts it: ⟨direction, W_o[:, h] · z_h⟩.

    z_h (size,) is what the output projection reads of head h. ``normalize``: read through the final norm and everything
    else on the direct path, so that a head's score is its exact share of the logit before any soft cap (ours); then all
    heads of an attention module and its bias add up to the module's share. Without it the direction is U_t.
    ``contrast`` as for neurons. Raises ``MethodError``, naming the module, for an architecture without heads that can
    be told apart, or whose heads write into another branch than the residual stream.
    """
    found = require_heads(model)
    weights = [contrasted(model, run, target, contrast) for target in targets]
    rows = [run.row(target.position) for target in targets]
    directions = [weighted(model.unembedding, tokens) for tokens in weights]
    shares = None
    if normalize:
        shares = direct_shares(model, run, [(t.position, w) for t, w in zip(targets, weights, strict=True)])
        _require_all(model, found, shares)
    read = mixed(model, run.forced_inputs(), rows)
    parts: list[list[Tensor]] = [[] for _ in targets]
    for one in found:
        if shares is None:
            along = torch.stack(directions)
        else:
            nothing = torch.zeros(one.writer.hidden_size)
            along = torch.stack([gradients.get(one.site, nothing) for gradients in shares.gradients])
        products = read[one].float().cpu() * one.writer.project(along)  # (T, width)
        for own, values in zip(parts, one.apart(products).sum(-1), strict=True):
            own.append(values)
    heads = tuple(head for one in found for head in one.heads)
    return [HeadScores(heads, torch.cat(values), _notes(model)) for values in parts]


def causal_effect(model: Model, run: Run, target: Target, among: Heads | None = None, *, batch: int = 64) -> HeadScores:
    """The drop of log p(t) (nats) when a head's output at the predicting position is zeroed, of ``among`` or of all."""
    if batch < 1:
        raise MethodError(f"batch is {batch}; evaluate 1 head or more at a time.")
    heads = tuple(head for one in require_heads(model) for head in one.heads) if among is None else as_heads(among)
    last = LastPosition(model, run.forced_inputs(target.position))
    before = last.logits.log_softmax(-1)[target.token_id].cpu()
    drops = []
    for start in range(0, len(heads), batch):
        part = heads[start : start + batch]
        with contextlib.ExitStack() as stack:
            places: dict[Attention, list[tuple[int, slice]]] = {}
            for copy, head in enumerate(part):
                own = attention_of(model, head)
                places.setdefault(own, []).append((copy, own.columns(head)))
            for own, spots in places.items():
                stack.enter_context(edit_heads(model, own, _zero(spots, len(part))))
            logits = last.evaluate(len(part), lowest=min(head.layer for head in part))
        drops.append(before - logits.log_softmax(-1)[:, target.token_id].cpu())
    return HeadScores(heads, torch.cat(drops) if drops else torch.zeros(0))


def joined(scored: Sequence[HeadScores], agree: str, top: int | None) -> HeadSet:
    """The heads of several runs by their mean score, or by how many runs have them among their own ``top``."""
    values = torch.stack([scores.values for scores in scored])
    if agree == "vote":
        votes = torch.stack([_among_the_best(own, top) for own in values]).mean(0)
        order = torch.sort(values.mean(0), descending=True, stable=True).indices
        order = order[torch.sort(votes[order], descending=True, stable=True).indices][:top]
        ranked, values = order[votes[order] > 0].tolist(), votes
        heads = scored[0].heads
        return HeadSet(tuple(ScoredHead(heads[at], float(values[at])) for at in ranked), {"agree": agree, "top": top})
    return HeadScores(scored[0].heads, values.mean(0)).top(top, {"agree": agree, "top": top})


def _among_the_best(values: Tensor, top: int | None) -> Tensor:
    chosen = torch.zeros(len(values))
    chosen[torch.sort(values, descending=True, stable=True).indices[:top]] = 1
    return chosen


def _zero(spots: Sequence[tuple[int, slice]], count: int) -> Change:
    def zero(inputs: Tensor) -> Tensor:
        rows = inputs.clone().reshape(count, -1, inputs.shape[-1])
        for copy, columns in spots:
            rows[copy, -1, columns] = 0
        return rows.reshape(inputs.shape)

    return zero


def _require_all(model: Model, found: Sequence[Attention], shares: WriterGradients) -> None:
    """Raise ``NoShares``, naming the module, where heads are not what an attention module writes into the stream."""
    if not any(one.site in own for one in found for own in shares.shares):
        raise NoShares(
            f"What {found[0].kind} (layer {found[0].writer.layer}, '{found[0].path}') of {model.name} writes goes into "
            "another branch than the residual stream, so its heads have no shares of the logit; use "
            "method='causal_effect'."
        )
    for one in found:
        for own in shares.shares:
            for (layer, path), share in own.items():
                beside = (layer, path) != one.site and layer == one.writer.layer and path.startswith(f"{one.path}.")
                if beside and share:
                    raise NoShares(
                        f"{one.kind} (layer {layer}, '{one.path}') of {model.name} writes more than its heads "
                        f"('{path}'), so the heads' shares do not add up to its own; use normalize=False."
                    )


def _notes(model: Model) -> tuple[str, ...]:
    """What a reader must know of mixers that have no heads."""
    kinds: dict[str, list[int]] = {}
    for layer, _, kind in headless(model):
        kinds.setdefault(kind, []).append(layer)
    return tuple(
        f"{kind} (layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}) has no heads and is not scored."
        for kind, layers in kinds.items()
    )
