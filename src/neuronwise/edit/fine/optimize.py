"""Adam on the changes of several requests side by side, each with its own loss, its own state and its own end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from neuronwise.edit.above import Forward, recomputed_from
from neuronwise.edit.fine.batch import Batch
from neuronwise.edit.fine.change import Change, Shown, lowest_layer
from neuronwise.edit.fine.loss import Wanted, loss
from neuronwise.edit.fine.settings import FineSettings
from neuronwise.edit.fine.start import ROUNDS, search
from neuronwise.errors import NonFiniteError
from neuronwise.model.hooks import Hooks


@dataclass(eq=False)
class Attempt:
    """One request under way: what is wanted, its change, and how far it has come."""

    number: int  # in the batch
    wanted: Wanted
    change: Change
    steps: int = 0
    reached: list[float] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)

    def sees(self, logits: Tensor) -> Tensor:
        """Log-probabilities (rows, V) of its rows of the logits; notes what has been reached."""
        now = logits.float().log_softmax(-1)
        self.reached = self.wanted.said(now.detach()).exp().tolist()
        return now

    def loss(self, now: Tensor, values: Tensor, settings: FineSettings) -> Tensor:
        """The whole loss, γ·‖Δ‖₂ included."""
        if self.wanted.before is None:  # Δ is zero until the first step is taken
            self.wanted.before = now[: self.wanted.length - 1].detach().clone()
        found = loss(self.wanted, now, settings)
        if settings.gamma:
            found = found + settings.gamma * values.norm().to(found.device)
        if not torch.isfinite(found):
            raise NonFiniteError("The loss of this edit is not finite; load the model with dtype=torch.float32.")
        return found


def optimize(batch: Batch, changes: Sequence[Change], settings: FineSettings) -> list[Attempt]:
    """Every change learned until each target token of its request has the probability ``settings.enough``.

    Layers below the lowest changed one are computed once. A request that has come to its end leaves the passes.
    Raises ``NonFiniteError`` for a loss that is not finite.
    """
    model = batch.model
    attempts = [
        Attempt(number, Wanted.of(request), change)
        for number, (request, change) in enumerate(zip(batch.requests, changes, strict=True))
    ]
    optimizer = torch.optim.Adam([change.values for change in changes], lr=settings.rate)
    active = attempts
    lowest = lowest_layer(model, changes)
    with recomputed_from(model, lowest, batch.inputs) as forward, Hooks() as hooks:
        shown = Shown(model, hooks, changes)
        for step in range(settings.steps):
            active = _step(forward, batch, shown, active, settings)
            if not active:
                break
            if step < ROUNDS and settings.start == "search":
                active = search(forward, batch, shown, active, settings, first=step == 0)
                if not active:
                    break
            else:
                optimizer.step()
            optimizer.zero_grad()
    return attempts


def _step(forward: Forward, batch: Batch, shown: Shown, active: list[Attempt], settings: FineSettings) -> list[Attempt]:
    """One pass and the gradients of those requests that have not reached enough; returns these."""
    shown.of = [attempt.change for attempt in active]
    shown.values = [attempt.change.values for attempt in active]
    going: list[Attempt] = []
    with Hooks() as hooks:
        numbers = [attempt.number for attempt in active]
        slices = batch.real_rows(hooks, numbers)
        logits = forward(of=numbers)
    gradient = torch.zeros_like(logits)
    for attempt, rows in zip(active, slices, strict=True):
        attempt.steps += 1
        leaf = logits[0, rows].detach().requires_grad_()
        now = attempt.sees(leaf)
        if min(attempt.reached) >= settings.enough:
            continue
        going.append(attempt)
        attempt.loss(now, attempt.change.values, settings).backward()
        assert leaf.grad is not None
        gradient[0, rows] = leaf.grad
    if going:
        logits.backward(gradient)
    for attempt in active:
        if attempt not in going:
            attempt.change.values.grad = None  # what has come to its end is not moved any more
    return going
