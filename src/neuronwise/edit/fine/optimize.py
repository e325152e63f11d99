"""Adam on the changes of several requests side by side, each with its own loss, its own state and its own end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuronwise.edit.fine.change import Change, Shown
from neuronwise.edit.fine.head import plain_head
from neuronwise.edit.fine.line import Line
from neuronwise.edit.fine.loss import Before, Reading, loss, read
from neuronwise.edit.fine.request import Batch
from neuronwise.edit.fine.settings import FineSettings
from neuronwise.edit.trial import Forward, lowest_layer, recomputed_from, require_finite
from neuronwise.model.passes import inputs_of, only_rows, stop_before

ROUNDS = 3  # of the search (ours), before Adam takes over


def optimize(batch: Batch, changes: Sequence[Change], settings: FineSettings) -> None:
    """Learn every change until each target token of its request has the probability ``settings.enough``.

    Layers below the lowest changed one are computed once. A request that has come to its end leaves the passes.
    Raises ``NonFiniteError`` for a loss that is not finite.
    """
    optimizer = torch.optim.Adam([change.values for change in changes], lr=settings.rate)
    lowest = lowest_layer(batch.model, [writer for change in changes for writer in change.columns])
    with recomputed_from(batch.model, lowest, batch.inputs) as forward:
        passes = Passes(batch, changes, settings, forward)
        with passes.shown.among(changes):
            active = list(changes)
            for step in range(settings.steps):
                searching = step < ROUNDS and settings.start == "search"
                active = passes.step(active, searching)
                if active and searching:
                    active = passes.search(active)
                elif active:
                    optimizer.step()
                if not active:
                    break
                optimizer.zero_grad()


class Passes:
    """The passes of one batch: what they show, and what they say of each request."""

    def __init__(self, batch: Batch, changes: Sequence[Change], settings: FineSettings, forward: Forward) -> None:
        self.batch, self.settings, self.forward = batch, settings, forward
        self.numbers = {change: number for number, change in enumerate(changes)}
        self.before: dict[Change, Before] = {}  # what the unedited model says
        self.head = plain_head(batch.model, batch.inputs)
        self.shown = Shown()

    def step(self, active: Sequence[Change], together: bool = False) -> list[Change]:
        """One pass and the gradients of those that have not reached enough; returns these.

        ``together``: of all target tokens that are not likely enough, see ``loss``.
        """
        rows, slices = self.rows(active, [change.values for change in active])
        gradient = torch.zeros_like(rows)
        going: list[Change] = []
        for change, own in zip(active, slices, strict=True):
            change.steps += 1
            leaf = rows[own].detach().requires_grad_()
            reading = self.read(change, leaf)
            if min(change.reached) >= self.settings.enough:
                continue
            going.append(change)
            self.loss(change, reading, change.values, together).backward()
            assert leaf.grad is not None
            gradient[own] = leaf.grad
        if going:
            rows.backward(gradient)
        for change in active:
            if change not in going:
                change.values.grad = None  # what has come to its end is not moved any more
        return going

    def search(self, active: Sequence[Change]) -> list[Change]:
        """Move each change against the sign of its gradient, which is where Adam's first step goes, by a good length.

        The shortest of a few lengths (in Adam's steps, see ``Line``) that reaches enough, which ends the request, else
        the one of least loss. No gradients are taken. Returns those that have not reached enough.
        """
        going: list[Change] = []
        for change in active:
            assert change.values.grad is not None
            direction = -self.settings.rate * change.values.grad.sign()
            rise = -float((direction * change.values.grad).sum())
            line, origin = Line(self.settings.enough, min(change.reached), rise), change.values.detach().clone()
            tried: dict[float, tuple[Reading, list[float]]] = {}
            with torch.no_grad():
                while (length := line.next()) is not None:
                    rows, (own,) = self.rows([change], [origin + direction * length])
                    tried[length] = self.read(change, rows[own]), change.reached
                    line.add(length, min(change.reached))
                best = line.shortest
                if best is None:
                    losses = {
                        length: float(self.loss(change, reading, origin + direction * length))
                        for length, (reading, _) in tried.items()
                    }
                    best = min(losses, key=losses.__getitem__)
                    going.append(change)
                change.values.copy_(origin + direction * best)
            change.reached = tried[best][1]
            change.start.append(best)
        return going

    def rows(self, changes: Sequence[Change], values: Sequence[Tensor]) -> tuple[Tensor, list[slice]]:
        """(all rows, d or V) of a pass with these values in, with their graph, and the rows of each request."""
        self.shown.of, self.shown.values = changes, values
        numbers, head = [self.numbers[change] for change in changes], self.batch.model.head
        real, slices = self.batch.real_rows(numbers), self.batch.slices(numbers)
        if self.head is None:
            return self.forward(real, numbers)[0], slices
        with only_rows(self.batch.model, real), inputs_of(head) as seen, stop_before(head):
            self.forward(None, numbers)
        return seen[0][0], slices

    def read(self, change: Change, rows: Tensor) -> Reading:
        """What a request's rows say; notes what has been reached."""
        reading = read(change.request, rows, self.head, sparing=self.settings.start == "search")
        change.reached = reading.said().detach().exp().tolist()
        return reading

    def loss(self, change: Change, reading: Reading, values: Tensor, together: bool = False) -> Tensor:
        """The whole loss, γ·‖Δ‖₂ included."""
        found = loss(change.request, reading, self.before.get(change), self.settings, together)
        if change not in self.before:  # Δ is zero until the first step is taken
            self.before[change] = reading.kept()
        if self.settings.gamma:
            found = found + self.settings.gamma * values.norm().to(found.device)
        require_finite(found, "The loss of this edit is")
        return found
