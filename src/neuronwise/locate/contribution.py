"""Contribution: what each neuron adds to the target's logit at the position that predicts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.scores import Scores, combine
from neuronwise.model.prompt import target_tokens
from neuronwise.model.record import Activations
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import Written, unit_path, written_gradients

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
    its router weight.
    """
    contrasts = [_contrast_tokens(model, run, target, contrast) for target in targets]
    wanted = [
        Target(token, target.position, "")
        for target, tokens in zip(targets, contrasts, strict=True)
        for token in (target.token_id, *tokens)
    ]
    scores = iter(_scores(model, run, wanted, activation, normalize))
    results = []
    for tokens in contrasts:
        score = next(scores)
        for _ in tokens:
            score = combine(score, next(scores), -1.0 / len(tokens))
        results.append(score)
    return results


def _scores(model: Model, run: Run, targets: Sequence[Target], kind: str, normalize: bool) -> list[Scores]:
    written = direct_shares(model, run, targets) if normalize else None
    results = []
    by_position: dict[int, list[int]] = {}
    for index, target in enumerate(targets):
        by_position.setdefault(target.position, []).append(index)
    results = [Scores() for _ in targets]
    for position, indices in by_position.items():
        acts = run.activations(position, kind)
        directions = model.unembedding[[targets[i].token_id for i in indices]]
        for block in model.blocks:
            paths = [w.path for w in block.dense]
            if block.layer in acts.dense:
                a = acts.dense[block.layer][0].float()
                if written is None:
                    projected = block.project(directions)
                else:
                    projected = torch.stack([_read(block, written, i, run.row(position), paths) for i in indices])
                for index, read in zip(indices, projected, strict=True):
                    results[index].values[block.layer, None] = a * read
                    results[index].activations[block.layer, None] = a
            for expert, record in _experts(acts, block.layer).items():
                a = record.activation.float()
                if written is not None:
                    number = block.routed.index(block.expert(expert)[0])
                    key = (block.layer, unit_path(block, number))
                    directions = torch.stack([written.gradients[i][key][run.row(position)] for i in indices])
                for index, read in zip(indices, block.project_expert(expert, directions), strict=True):
                    results[index].values[block.layer, expert] = record.weight * a * read
                    results[index].activations[block.layer, expert] = a
    return results


def direct_shares(model: Model, run: Run, targets: Sequence[Target]) -> Written:
    """Direct-path gradients of the targets' logits in one pass over the run's sequence.

    Raises ``MethodError`` where the components' shares do not add up to the logit: an architecture whose stream
    cannot be split this way (altered residual streams) is refused, not mis-scored.
    """
    pairs = [(run.row(target.position), target.token_id) for target in targets]
    written = written_gradients(model, run.forced_inputs(), pairs, direct=True)
    for index in range(len(pairs)):
        total = share_total(written, index)
        scale = component_scale(written, index)
        dtype = next(model.module.parameters()).dtype
        tolerance = 1e-4 if dtype == torch.float32 else 5e-2
        if abs(total - written.logits[index]) > tolerance * scale:
            raise MethodError(
                f"The residual stream of {model.name} cannot be split into shares of the logit (the components add up "
                f"to {total:.4f}, the logit is {written.logits[index]:.4f}); use normalize=False."
            )
    return written


def share_total(written: Written, index: int) -> float:
    """The sum of all components' shares of target ``index``: writers, attention, embeddings and biases."""
    return written.constants[index] + sum(_shares(written, index))


def component_scale(written: Written, index: int) -> float:
    """The sum of the shares' sizes: what rounding errors are measured against."""
    return sum(map(abs, _shares(written, index))) + abs(written.logits[index])


def _shares(written: Written, index: int) -> list[float]:
    """Each component's share, over all its rows: along the direct path only the target's own row has a gradient."""
    return [float((g * written.outputs[key]).sum()) for key, g in written.gradients[index].items()]


def _read(block: object, written: Written, index: int, row: int, paths: Sequence[str]) -> Tensor:
    """(f,): ⟨direct gradient, value vector⟩, writer by writer."""
    from neuronwise.model.blocks import Block, dense_weight

    assert isinstance(block, Block)
    parts = []
    for writer, path in zip(block.dense, paths, strict=True):
        gradient = written.gradients[index].get((block.layer, path))
        if gradient is None:  # off the direct path
            parts.append(torch.zeros(writer.width))
            continue
        weight = dense_weight(writer)
        parts.append((gradient[row].to(weight.device) @ weight.float()).cpu())
    return torch.cat(parts)


def _experts(acts: Activations, layer: int) -> dict:
    return acts.routed[layer][0] if layer in acts.routed else {}


def _contrast_tokens(
    model: Model, run: Run, target: Target, contrast: Sequence[str | int] | int | None
) -> tuple[int, ...]:
    if contrast is None:
        return ()
    if isinstance(contrast, int):
        if contrast < 1:
            raise MethodError(
                f"contrast is {contrast}; give a number of alternatives from 1, or the tokens themselves."
            )
        with torch.no_grad():
            logits = model.forward(run.forced_inputs(), rows=[run.row(target.position)])[0, 0].float().clone()
        logits[target.token_id] = -torch.inf
        return tuple(logits.topk(contrast).indices.tolist())
    if isinstance(contrast, str):
        contrast = [contrast]
    return tuple(target_tokens(model.tokenizer, model.vocabulary_size, token).token_id for token in contrast)
