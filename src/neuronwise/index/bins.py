"""The histogram of an activation: 64 bins whose edges are the same for all neurons, and counts in one byte."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 64
SIDE = BINS // 2  # bins of one sign
LOWEST = -8  # activations below 2 ** LOWEST in size fall into the innermost bin of their sign
STEPS = 8  # values of a stored count for each doubling

_FIRST = (127 + LOWEST) << 1  # a float32's exponent and first bit of its fraction, at 2 ** LOWEST
# 2^-8, 1.5 · 2^-8, 2^-7, …, 1.5 · 2^6, 2^7: 31 sizes at which a bin begins.
SIZES: NDArray[np.float32] = np.array(
    [(1 + step % 2 / 2) * 2.0 ** (LOWEST + step // 2) for step in range(SIDE - 1)], dtype=np.float32
)
EDGES: NDArray[np.float32] = np.concatenate([-SIZES[::-1], np.zeros(1, np.float32), SIZES])  # between the 64 bins


def bins_of(values: Tensor) -> Tensor:
    """The bin of each float32 activation, as int32: 0 to 63 from the most negative on; 0 itself is in bin 32.

    A bin of positive activations holds its lower edge, one of negative activations its upper edge.
    """
    sizes = ((values.view(torch.int32) & 0x7FFFFFFF) >> 22) - (_FIRST - 1)
    sizes.clamp_(0, SIDE - 1)
    return torch.where(values < 0, SIDE - 1 - sizes, SIDE + sizes)


def packed(counts: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Counts as one byte: round(8 · log2(1 + count)); exact up to 12, at most 8 % off above (4.6 % above 100)."""
    return np.rint(STEPS * np.log2(1.0 + counts)).clip(0, 255).astype(np.uint8)


def unpacked(stored: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What ``packed`` keeps of counts."""
    return np.rint(2.0 ** (stored / STEPS) - 1).astype(np.int64)


@dataclass(frozen=True)
class Histogram:
    """``counts`` (64,) of activations in the bins between ``edges`` (63,); the outermost bins are open.

    The edges are 0 and ±2^e, ±1.5 · 2^e from 2^-8 to 2^7. Counts up to 12 are exact, larger ones at most 8 %
    off, above 100 at most 4.6 %.
    """

    counts: NDArray[np.int64]

    @property
    def edges(self) -> NDArray[np.float32]:
        """(63,): bin i is from ``edges[i - 1]`` to ``edges[i]``."""
        return EDGES

    def __repr__(self) -> str:
        return f"Histogram({int(self.counts.sum())} activations in {BINS} bins)"
