"""Percentile bootstrap intervals of means over cases, and of figures that are made of such means."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
FEWER = 2_000  # resamples where each is computed by itself
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
    return interval_of_means(numbers[:, None], lambda means: means[:, 0], level=level, resamples=resamples, seed=seed)


def interval_of_means(
    columns: NDArray[np.float64],
    figure: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Mean:
    """A figure of means over cases, such as a ratio of two, with its percentile bootstrap interval.

    ``columns`` is (cases, k); ``figure`` takes means (n, k) and gives (n,) figures.
    """
    count = len(columns)
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK // columns.size)
    drawn = np.concatenate(
        [
            columns[generator.integers(0, count, (min(rows, resamples - start), count))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
    low, high = np.quantile(figure(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Mean(float(figure(columns.mean(axis=0, keepdims=True))[0]), float(low), float(high), count)


def interval_of_groups(
    figure: Callable[[NDArray[np.intp]], float],
    groups: NDArray[np.intp],
    *,
    level: float = 0.95,
    resamples: int = FEWER,
    seed: int = 0,
) -> Mean:
    """Any figure of cases with its percentile bootstrap interval over groups of cases, such as the words of a photo.

    ``groups`` is (cases,), the group of each case; ``figure`` takes numbers of cases, some of them repeatedly.
    Resamples for which it is NaN are left out. ``n`` counts cases.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    generator = np.random.default_rng(seed)
    drawn = [
        figure(np.concatenate([members[place] for place in generator.integers(0, len(members), len(members))]))
        for _ in range(resamples)
    ]
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Mean(figure(np.arange(len(groups))), float(low), float(high), len(groups))
