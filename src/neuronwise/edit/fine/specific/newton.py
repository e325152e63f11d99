"""The value that the gate writes: Gauss-Newton steps of least norm on log-odds in several contexts (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.edit.above import recomputed_from
from neuronwise.edit.fine.specific.settings import SpecificSettings
from neuronwise.edit.memory.passages import Batch
from neuronwise.errors import NonFiniteError
from neuronwise.model.blocks import Block
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.model import Model

SURE = 1 - 1e-6  # a probability above it counts as this: its log-odds would be infinite


@dataclass
class Found:
    """``value`` (d,), the passes that were made, the log-odds reached in each context, what was said before any."""

    value: Tensor
    steps: int
    margins: Tensor
    said: list[int]


def search(
    model: Model,
    block: Block,
    batch: Batch,
    target: Sequence[int],
    units: Tensor,
    weights: Tensor,
    size: float,
    settings: SpecificSettings,
) -> Found:
    """z (d,) such that (weights·a_S)·z, added to what W_down writes, makes ``target`` likely in every passage.

    The first passage is the prompt itself; in the last ones, one for each of ``settings.asides``, what the model
    says next shall stay as likely as it was. ``size`` is the norm that ``step_cap`` counts in. Raises
    ``NonFiniteError``.
    """
    device, asked = model.device, len(batch) - len(settings.asides)
    spots = [(item, batch.lengths[item] - len(target) + k) for item in range(asked) for k in range(len(target))]
    spots += [(item, batch.lengths[item] - 1) for item in range(asked, len(batch))]
    owners, wanted = torch.tensor([item for item, _ in spots]), list(target) * asked
    goals = torch.tensor([settings.goal] + [settings.prefixed_goal] * (asked - 1) + [0.0] * len(settings.asides))
    value = best = torch.zeros(model.hidden_size)
    least, said, step, kept = float("inf"), [], 0, goals
    writer = block.dense[0].module
    with torch.enable_grad(), recomputed_from(model, lowest(model, writer), batch.inputs) as forward, Hooks() as hooks:
        values = [torch.zeros(0)]
        hooks.after(writer, _gated(values, units.to(device), weights.to(device), len(batch)))
        hooks.before(model.head, _only(spots))
        for step in range(1, settings.steps + 2):
            values[0] = value.to(device).expand(len(batch), -1).clone().requires_grad_()
            logits = forward()[0].float()
            if step == 1:
                said = logits.argmax(-1).tolist()
                wanted += said[len(wanted) :]  # what is said behind the asides shall be said there again
            reached = margins(logits, wanted, owners)
            now = reached.detach().cpu()
            if not bool(torch.isfinite(now).all()):
                raise NonFiniteError("The log-odds of this edit are not finite; load the model in dtype=torch.float32.")
            if step == 1:
                goals[asked:] = now[asked:]
            if enough(now[:asked], settings):
                return Found(value, step, now, said[: len(target)])
            missing = (goals - now).clamp(min=0)
            short = float(missing.square().sum())
            if short > least:
                value, least = (value + best) / 2, least * 1.0001  # half the way back, then on from there
                continue
            best, least, kept = value, short, now
            if step > settings.steps:
                break
            (jacobian,) = torch.autograd.grad(reached.sum(), values[0])
            change = least_norm(jacobian.float().cpu(), missing, settings.damping)
            value = value + change * min(1.0, settings.step_cap * size / max(float(change.norm()), 1e-12))
    return Found(best, step, kept, said[: len(target)])


def least_norm(jacobian: Tensor, missing: Tensor, damping: float) -> Tensor:
    """Jᵀ(J Jᵀ + damping·mean(diag J Jᵀ)·I)⁻¹ missing for J (contexts, d): the least change that gives the missing."""
    inner = jacobian @ jacobian.T
    inner.diagonal().add_(damping * inner.diagonal().mean().clamp(min=1e-12))
    return jacobian.T @ torch.linalg.solve(inner, missing)


def margins(logits: Tensor, wanted: Sequence[int], owners: Tensor) -> Tensor:
    """(contexts,): log-odds of the least likely wanted token of each, from logits (spots, V) and their owners."""
    tokens, owners = torch.tensor(list(wanted), device=logits.device), owners.to(logits.device)
    logs = logits.log_softmax(-1).gather(1, tokens.unsqueeze(1)).squeeze(1)
    odds = logs - torch.log1p(-logs.exp().clamp(max=SURE))
    return odds.new_zeros(int(owners.max()) + 1).scatter_reduce(0, owners, odds, "amin", include_self=False)


def enough(reached: Tensor, settings: SpecificSettings) -> bool:
    """Whether the target is as likely as it shall be on the prompt and behind the prefixes."""
    likely = reached.sigmoid()
    behind = float(likely[1:].log().mean().exp()) if len(likely) > 1 else 1.0
    return float(likely[0]) >= settings.enough and behind >= settings.prefixed_enough


def lowest(model: Model, writer: nn.Module) -> int:
    """The first layer that a writer serves: some models use one block in several layers."""
    return next(layer for layer, block in enumerate(model.blocks) if any(w.module is writer for w in block.dense))


def _gated(values: list[Tensor], units: Tensor, weights: Tensor, items: int) -> Any:
    def after(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
        inputs: Tensor = first_tensor(args, kwargs)
        fired = inputs.reshape(items, -1, inputs.shape[-1])[..., units.to(inputs.device)].float()
        added = (fired @ weights.to(inputs.device)).unsqueeze(-1) * values[0].to(inputs.device).unsqueeze(1)
        return output + added.to(output.dtype).reshape(output.shape)

    return after


def _only(spots: Sequence[tuple[int, int]]) -> Any:
    """Only these (passage, row) pass the head, one below the other."""
    items, rows = (list(part) for part in zip(*spots, strict=True))

    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden = first_tensor(args, kwargs)
        return replace_first(args, kwargs, hidden[items, rows].unsqueeze(0))

    return before
