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
from neuronwise.edit.fine.readings import Eyes, FromHidden, FromLogits, View
from neuronwise.edit.fine.settings import FineSettings
from neuronwise.edit.fine.start import ROUNDS, search
from neuronwise.errors import NonFiniteError
from neuronwise.model.hooks import Hooks


@dataclass(eq=False)
class Attempt:
    """One request under way: what is wanted, its change, and how far it has come."""

    number: int  # in the batch
    view: View
    change: Change
    steps: int = 0
    reached: list[float] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)

    def sees(self, rows: Tensor) -> FromHidden | FromLogits:
        """What its rows of a pass say; notes what has been reached."""
        reading = self.view.read(rows)
        self.reached = reading.said().detach().exp().tolist()
        return reading

    def loss(self, reading: FromHidden | FromLogits, values: Tensor, settings: FineSettings) -> Tensor:
        """The whole loss, γ·‖Δ‖₂ included."""
        if self.view.before is None:  # Δ is zero until the first step is taken
            reading.keep()
        found = loss(self.view.wanted, reading, settings)
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
    model, eyes = batch.model, Eyes(batch)
    attempts = [
        Attempt(number, View(Wanted.of(request), eyes.head), change)
        for number, (request, change) in enumerate(zip(batch.requests, changes, strict=True))
    ]
    optimizer = torch.optim.Adam([change.values for change in changes], lr=settings.rate)
    active = attempts
    lowest = lowest_layer(model, changes)
    with recomputed_from(model, lowest, batch.inputs) as forward, Hooks() as hooks:
        shown = Shown(model, hooks, changes)
        for step in range(settings.steps):
            active = _step(forward, eyes, shown, active, settings)
            if not active:
                break
            if step < ROUNDS and settings.start == "search":
                active = search(forward, eyes, shown, active, settings, first=step == 0)
                if not active:
                    break
            else:
                optimizer.step()
            optimizer.zero_grad()
    return attempts


def _step(forward: Forward, eyes: Eyes, shown: Shown, active: list[Attempt], settings: FineSettings) -> list[Attempt]:
    """One pass and the gradients of those requests that have not reached enough; returns these."""
    shown.of = [attempt.change for attempt in active]
    shown.values = [attempt.change.values for attempt in active]
    going: list[Attempt] = []
    rows, slices = eyes.rows(forward, [attempt.number for attempt in active])
    gradient = torch.zeros_like(rows)
    for attempt, own in zip(active, slices, strict=True):
        attempt.steps += 1
        leaf = rows[own].detach().requires_grad_()
        reading = attempt.sees(leaf)
        if min(attempt.reached) >= settings.enough:
            continue
        going.append(attempt)
        attempt.loss(reading, attempt.change.values, settings).backward()
        assert leaf.grad is not None
        gradient[own] = leaf.grad
    if going:
        rows.backward(gradient)
    for attempt in active:
        if attempt not in going:
            attempt.change.values.grad = None  # what has come to its end is not moved any more
    return going
