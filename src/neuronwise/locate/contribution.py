"""Contribution: what each neuron adds to the target's logit at the position that predicts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.locate.shares import direct_shares
from neuronwise.model.blocks import Block, dense_weight
from neuronwise.model.prompt import target_tokens
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import Written, unit_path

if TYPE_CHECKING:
    from neuronwise.model import Model

# (block, expert or None) → (f,): ⟨direction, value vector⟩ of each neuron there, for one target
Reader = Callable[[Block, int | None], Tensor]


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
    weights = [_weights(model, run, target, contrast) for target in targets]
    if normalize:
        written = direct_shares(model, run, [(t.position, w) for t, w in zip(targets, weights, strict=True)])
        readers = [_along_the_direct_path(written, index) for index in range(len(targets))]
    else:
        readers = _by_unembedding(model, weights)
    return [_scores(model, run, target, activation, reader) for target, reader in zip(targets, readers, strict=True)]


def _scores(model: Model, run: Run, target: Target, kind: str, reader: Reader) -> Scores:
    scores = Scores()
    acts = run.activations(target.position, kind)
    for block in model.blocks:
        if block.layer in acts.dense:
            a = acts.dense[block.layer][0].float()
            scores.values[block.layer, None] = a * reader(block, None)
            scores.activations[block.layer, None] = a
        for expert, record in (acts.routed[block.layer][0] if block.layer in acts.routed else {}).items():
            a = record.written
            scores.values[block.layer, expert] = a * reader(block, expert)
            scores.activations[block.layer, expert] = a
    return scores


def _by_unembedding(model: Model, weights: Sequence[Mapping[int, float]]) -> list[Reader]:
    """Readers of Σ weight · U_token, one product of T directions and W_down for each layer: never f × V."""
    unembedding = model.unembedding
    directions = torch.stack(
        [
            (unembedding[list(one)].float() * torch.tensor(list(one.values()), device=unembedding.device)[:, None]).sum(
                0
            )
            for one in weights
        ]
    )
    read: dict[tuple[int, int | None], Tensor] = {}

    def reader(index: int) -> Reader:
        def at(block: Block, expert: int | None) -> Tensor:
            place = (block.layer, expert)
            if place not in read:
                found = block.project(directions) if expert is None else block.project_expert(expert, directions)
                read[place] = found
            return read[place][index]

        return at

    return [reader(index) for index in range(len(weights))]


def _along_the_direct_path(written: Written, index: int) -> Reader:
    gradients = written.gradients[index]

    def at(block: Block, expert: int | None) -> Tensor:
        if expert is not None:
            path = unit_path(block, block.routed.index(block.expert(expert)[0]))
            return block.project_expert(expert, gradients[block.layer, path][None])[0]
        parts = []
        for writer in block.dense:
            gradient = gradients.get((block.layer, writer.path))
            if gradient is None:  # written into another branch: no share of its own
                parts.append(torch.zeros(writer.width))
            else:
                weight = dense_weight(writer)
                parts.append((gradient.to(weight.device) @ weight.float()).cpu())
        return torch.cat(parts)

    return at


def _weights(model: Model, run: Run, target: Target, contrast: Sequence[str | int] | int | None) -> dict[int, float]:
    """The target's logit, less the mean of those it is contrasted with, as weights of tokens."""
    others = _contrast_tokens(model, run, target, contrast)
    if target.token_id in others:
        raise MethodError(f"contrast names the target {target.text!r} itself; name another token.")
    weights = {target.token_id: 1.0}
    for token in others:
        weights[token] = weights.get(token, 0.0) - 1.0 / len(others)
    return weights


def _contrast_tokens(model: Model, run: Run, target: Target, contrast: Sequence[str | int] | int | None) -> list[int]:
    if contrast is None:
        return []
    if isinstance(contrast, bool | float):
        raise MethodError(f"contrast is {contrast}; name tokens, or a number of alternatives from 1.")
    if isinstance(contrast, int):
        if contrast < 1:
            raise MethodError(f"contrast is {contrast}; name tokens, or a number of alternatives from 1.")
        with torch.no_grad():
            logits = model.forward(run.forced_inputs(), rows=[run.row(target.position)])[0, 0].float().clone()
        logits[target.token_id] = -torch.inf
        return logits.topk(min(contrast, len(logits) - 1)).indices.tolist()
    listed = [contrast] if isinstance(contrast, str) else contrast
    if not listed or any(isinstance(token, str) and not token.strip() for token in listed):
        raise MethodError("contrast names no token, or an empty one; name tokens, or a number of alternatives.")
    return [target_tokens(model.tokenizer, model.vocabulary_size, token).token_id for token in listed]


METHOD = Method(
    "contribution",
    contribution,
    meaning="what each neuron adds to the logit of {token}",
    source="Pan et al. 2024 (arXiv 2311.07470), eq. 4; Pan et al. 2025 (arXiv 2503.01090), eq. 3",
)
# Exact shares of the logit, over the model's other candidates: options for the neurons of one word.
SHARP: dict[str, Any] = {"contrast": 10, "normalize": True}
