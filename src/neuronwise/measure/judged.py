"""How well probabilities tell two kinds of cases apart: accuracy and the area under the ROC curve."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from neuronwise.measure.bootstrap import Mean, interval_of_groups


@dataclass(frozen=True)
class Judged:
    """How well probabilities tell the labels of cases that they were not fitted on.

    ``accuracy``: share of cases on the right side of 1/2; ``auroc``: the share of pairs of a true and a false case
    that are in the right order (None where a kind is missing). Both with a bootstrap interval over groups.
    ``commonest``: the share of the more frequent label, which is the accuracy of knowing nothing else.
    """

    accuracy: Mean
    auroc: Mean | None
    commonest: float
    labels: tuple[bool, ...] = field(repr=False)
    probabilities: tuple[float, ...] = field(repr=False)


def judged(truth: NDArray[np.bool_], probabilities: NDArray[np.float64], groups: NDArray[np.intp]) -> Judged:
    """Accuracy and AUROC of (cases,) probabilities, with intervals over ``groups``, the number of each case's group."""
    right = (probabilities > 0.5) == truth
    accuracy = interval_of_groups(lambda rows: float(right[rows].mean()), groups)
    area = None
    if truth.any() and not truth.all():
        area = interval_of_groups(lambda rows: auroc(truth[rows], probabilities[rows]), groups)
    share = float(truth.mean())
    return Judged(accuracy, area, max(share, 1 - share), tuple(truth.tolist()), tuple(probabilities.tolist()))


def auroc(truth: NDArray[np.bool_], values: NDArray[np.float64]) -> float:
    """The share of (true, false) pairs in which the true case has the larger value, ties half; NaN without pairs."""
    above, below = values[truth], np.sort(values[~truth])
    if not len(above) or not len(below):
        return math.nan
    smaller = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(smaller.sum() / 2 / (len(above) * len(below)))
