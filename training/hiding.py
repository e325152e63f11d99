"""Which image tokens a training step shows of a photo, and what cannot be said without the others.

A model that is shown half a photo and told its whole caption learns to guess. Where masks say what is hidden, it is
told not to name that: it is to say what it sees.
"""

import random

import torch

SEEN = 0.2
"""Cells' worth of an object that can be seen: less of it is unseen."""


def drawn_cells(coverage: torch.Tensor, count: int, chance: random.Random, hidden: int | None) -> torch.Tensor:
    """Return (cells,) booleans: `count` cells drawn, those with objects likelier, none with any of the hidden category.

    `coverage` (cells, categories) says how much of a cell a category covers.
    """
    order = torch.tensor([chance.random() for _ in range(len(coverage))]) - 0.4 * coverage.amax(1)
    if hidden is not None:
        covered = coverage[:, hidden] > 0.02
        order[covered] = float("inf")
        count = min(count, int((~covered).sum()))
    return order.argsort().argsort() < count


def hideable(coverage: torch.Tensor, categories: list[int]) -> list[int]:
    """Return those of the categories that can be seen, and whose hiding leaves at least a quarter of the cells."""
    area = coverage.sum(0)
    left = (coverage <= 0.02).sum(0)
    return [at for at in categories if area[at] > SEEN and left[at] >= len(coverage) / 4]


def unseen(coverage: torch.Tensor, shown: torch.Tensor, categories: list[int]) -> list[int]:
    """Return those of the categories of which the shown cells hold next to nothing."""
    area = coverage[shown].sum(0)
    return [at for at in categories if area[at] < SEEN]
