"""A start from a good guess: how far to go along Adam's first step, tried before the small steps (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from neuronwise.edit.above import Forward
from neuronwise.edit.fine.change import Shown
from neuronwise.edit.fine.readings import Eyes
from neuronwise.edit.fine.settings import FineSettings

if TYPE_CHECKING:
    from neuronwise.edit.fine.optimize import Attempt

LENGTHS = (4, 8, 12, 16, 24)  # in Adam's steps
LATER = (1, 2, 4, 8, 12)
ROUNDS = 3  # searches before Adam takes over


def search(
    forward: Forward, eyes: Eyes, shown: Shown, active: Sequence[Attempt], settings: FineSettings, first: bool
) -> list[Attempt]:
    """Move each change against the sign of its gradient, which is where Adam's first step goes, by a good length.

    The shortest of ``LENGTHS`` (later of ``LATER``) that reaches enough, which ends the request, else the one of least
    loss. No gradients are taken. Returns the requests that have not reached enough.
    """
    going: list[Attempt] = []
    for attempt in active:
        change = attempt.change
        assert change.values.grad is not None
        direction = -settings.rate * change.values.grad.sign()
        before = change.values.detach().clone()
        tried: list[tuple[float, int]] = []
        for length in LENGTHS if first else LATER:
            with torch.no_grad():
                shown.of, shown.values = [change], [before + direction * length]
                rows, _ = eyes.rows(forward, [attempt.number])
                reading = attempt.sees(rows[: eyes.batch.lengths[attempt.number]])
                tried.append((float(attempt.loss(reading, shown.values[0], settings)), length))
            if min(attempt.reached) >= settings.enough:
                best = length
                break
        else:
            best = min(tried)[1]
            going.append(attempt)
        attempt.outcome.setdefault("start", []).append(best)
        with torch.no_grad():
            change.values.copy_(before + direction * best)
    return going
