"""A start from a good guess: how far to go along Adam's first step, tried before the small steps (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from neuronwise.edit.above import Forward
from neuronwise.edit.fine.batch import Batch
from neuronwise.edit.fine.change import Shown
from neuronwise.edit.fine.settings import FineSettings
from neuronwise.model.hooks import Hooks

if TYPE_CHECKING:
    from neuronwise.edit.fine.optimize import Attempt

LENGTHS = (4, 8, 12, 16, 24)  # in Adam's steps


def search(forward: Forward, batch: Batch, shown: Shown, active: Sequence[Attempt], settings: FineSettings) -> None:
    """Move each change against the sign of its gradient, which is where Adam's first step goes, by a good length.

    Of ``LENGTHS`` the shortest that reaches enough, else the one of least loss. No gradients are taken.
    """
    for attempt in active:
        change = attempt.change
        assert change.values.grad is not None
        direction = -settings.rate * change.values.grad.sign()
        tried: list[tuple[bool, float, int]] = []
        for length in LENGTHS:
            with Hooks() as hooks, torch.no_grad():
                shown.of, shown.values = [change], [direction * length]
                batch.real_rows(hooks, [attempt.number])
                logits = forward(of=[attempt.number])
                now = attempt.sees(logits[0, : batch.lengths[attempt.number]])
                found = float(attempt.loss(now, shown.values[0], settings))
            tried.append((min(attempt.reached) < settings.enough, found, length))
        reaching = [t for t in tried if not t[0]]
        best = reaching[0] if reaching else min(tried)
        attempt.outcome["start"] = best[2]
        with torch.no_grad():
            change.values += direction * best[2]
