"""Percentile bootstrap intervals of means over cases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
BLOCK = 2_000_000  # numbers drawn at once, so that many cases do not need much memory


@dataclass(frozen=True)
class Mean:
    """A mean over ``n`` cases with the ends of its interval (both the mean itself for a single case)."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(
    values: Iterable[float | None], *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Mean | None:
    """Mean and percentile bootstrap interval over cases; ``None`` values are cases without this figure.

    A ratio (such as a share of tokens) is averaged case by case, so that every case weighs the same. ``None`` when
    there is no value.
    """
    numbers = np.array([value for value in values if value is not None], dtype=np.float64)
    if not len(numbers):
        return None
    if len(numbers) == 1 or (numbers == numbers[0]).all():
        only = float(numbers[0])
        return Mean(only, only, only, len(numbers))
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // len(numbers))
    means = np.concatenate(
        [
            numbers[generator.integers(0, len(numbers), (min(rows, resamples - start), len(numbers)))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Mean(float(numbers.mean()), float(low), float(high), len(numbers))
