"""A neuron's histograms as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from neuronwise.drawing.style import COLORS, QUIET, plotting
from neuronwise.index.bins import BINS, EDGES, Histogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKED = (-100.0, -10.0, -1.0, -0.1, -0.01, 0.0, 0.01, 0.1, 1.0, 10.0, 100.0)  # activations on the axis


def drawn(panels: Mapping[str, Histogram], threshold: float) -> Figure:
    """One panel for each histogram, by its title: the share of positions in each bin, and lines at ±``threshold``.

    The axis counts bins, so it is about logarithmic on both sides of 0.
    """
    with plotting() as pyplot:
        figure, rows = pyplot.subplots(
            len(panels), 1, figsize=(6.4, 1.5 * len(panels) + 0.6), sharex=True, squeeze=False
        )
        for (title, histogram), axes, color in zip(panels.items(), rows[:, 0], COLORS, strict=False):
            axes.bar(np.arange(BINS) + 0.5, histogram.counts / max(histogram.counts.sum(), 1), width=1.0, color=color)
            for size in (-threshold, threshold):
                axes.axvline(_at(size), color=QUIET, linewidth=0.8, linestyle=":")
            axes.set_title(title)
            axes.set_ylabel("share")
        rows[-1, 0].set_xlim(0, BINS)
        rows[-1, 0].set_xticks([_at(value) for value in MARKED], [f"{value:g}" for value in MARKED])
        rows[-1, 0].set_xlabel("activation")
    return figure


def _at(value: float) -> float:
    """Where an activation is on the axis."""
    return float(np.interp(value, EDGES, np.arange(1, BINS)))
