"""The value that the gate writes: Gauss-Newton steps of least norm on log-odds in several contexts (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.edit.fine.specific.settings import SpecificSettings
from neuronwise.edit.memory.passages import Passages
from neuronwise.edit.trial import changed, lowest_layer, recomputed_from, require_finite
from neuronwise.model.model import Model
from neuronwise.model.writers import Writer

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
    writer: Writer,
    passages: Passages,
    target: Sequence[int],
    units: Tensor,
    weights: Tensor,
    size: float,
    settings: SpecificSettings,
) -> Found:
    """z (d,) such that (weights·a_S)·z, added to what W_down writes, makes ``target`` likely in every passage.

    The first passage is the prompt itself; in the last ones, one for each of ``settings.asides``, what the model
    says next must stay as likely as it was. ``size`` is the norm that ``step_cap`` counts in. Raises
    ``NonFiniteError``.
    """
    contexts = _Contexts(passages, target, settings)
    gate = _Gate(units.to(model.device), weights.to(model.device), len(passages))
    value = best = torch.zeros(model.hidden_size)
    least, step, now = float("inf"), 0, contexts.goals
    reached = now
    lowest = lowest_layer(model, [writer])
    with (
        torch.enable_grad(),
        recomputed_from(model, lowest, passages.inputs) as forward,
        changed([writer], gate.write),
    ):
        for step in range(1, settings.steps + 2):
            gate.values = value.to(model.device).expand(len(passages), -1).clone().requires_grad_()
            odds = contexts.margins(forward(contexts.rows)[0].float())
            now = odds.detach().cpu()
            require_finite(now, "The log-odds of this edit are")
            if enough(now[: contexts.asked], settings):
                return Found(value, step, now, contexts.said)
            missing = (contexts.goals - now).clamp(min=0)
            short = float(missing.square().sum())
            if short > least:
                value, least = (value + best) / 2, least * 1.0001  # half the way back, then on from there
                continue
            best, least, reached = value, short, now
            if step > settings.steps:
                break
            (jacobian,) = torch.autograd.grad(odds.sum(), gate.values)
            change = least_norm(jacobian.float().cpu(), missing, settings.damping)
            value = value + change * min(1.0, settings.step_cap * size / max(float(change.norm()), 1e-12))
    return Found(best, step, reached, contexts.said)


class _Contexts:
    """The rows that are read, whose passages they are, and the log-odds aimed at in each passage."""

    def __init__(self, passages: Passages, target: Sequence[int], settings: SpecificSettings) -> None:
        self.asked, self.target = len(passages) - len(settings.asides), list(target)
        counts = [len(target)] * self.asked + [1] * len(settings.asides)
        self.rows = [passages.last_rows(item, count) for item, count in enumerate(counts)]
        self.owners = torch.tensor([item for item, count in enumerate(counts) for _ in range(count)])
        self.goals = torch.tensor(
            [settings.goal] + [settings.prefixed_goal] * (self.asked - 1) + [0.0] * len(settings.asides)
        )
        self.wanted: list[int] = []
        self.said: list[int] = []

    def margins(self, logits: Tensor) -> Tensor:
        """(passages,) log-odds of the least likely wanted token of each, from logits (all rows, V).

        The first pass sets what is wanted behind the asides: what the unedited model says there, as likely as it is.
        """
        if self.wanted:
            return margins(logits, self.wanted, self.owners)
        said = logits.argmax(-1).tolist()
        self.wanted = self.target * self.asked
        self.wanted += said[len(self.wanted) :]
        self.said = said[: len(self.target)]
        found = margins(logits, self.wanted, self.owners)
        self.goals[self.asked :] = found.detach().cpu()[self.asked :]
        return found


class _Gate:
    """Adds (weights·a_S)·z to what a writer writes; ``values`` (passages, d) holds one z for each passage."""

    def __init__(self, units: Tensor, weights: Tensor, items: int) -> None:
        self.units, self.weights, self.items = units, weights, items
        self.values = torch.zeros(0)

    def write(self, writer: Writer, inputs: Tensor, output: Tensor) -> Tensor:
        fired = inputs.reshape(self.items, -1, inputs.shape[-1])[..., self.units.to(inputs.device)].float()
        gates = (fired @ self.weights.to(inputs.device)).unsqueeze(-1)
        added = gates * self.values.to(inputs.device).unsqueeze(1)
        return output + added.to(output.dtype).reshape(output.shape)


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
    """Whether the target is as likely as it should be on the prompt and behind the prefixes."""
    likely = reached.sigmoid()
    behind = float(likely[1:].log().mean().exp()) if len(likely) > 1 else 1.0
    return float(likely[0]) >= settings.enough and behind >= settings.prefixed_enough
