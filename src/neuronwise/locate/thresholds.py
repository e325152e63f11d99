"""Automatic thresholds of scores: a quantile, the knee of the sorted scores, or what other photos reach."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.scores import Scores

AUTOMATIC = ("quantile", "knee", "null")


def flat(scores: Scores) -> Tensor:
    """All scores of one target in one vector, float32."""
    return torch.cat([values.flatten().float() for values in scores.values()])


def quantile(scores: Scores, share: float = 0.999) -> float:
    """The score that ``share`` of all neurons do not exceed."""
    if not 0 < share < 1:
        raise MethodError(f"A quantile is between 0 and 1, not {share}.")
    ordered = flat(scores).sort().values  # torch.quantile takes no more than 16 million
    return float(ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))])


def knee(scores: Scores) -> float:
    """The knee of the scores sorted from high to low, negative ones as 0: where the curve is farthest below its chord.

    The idea of Satopaa et al. 2011 for a convex falling curve, without smoothing. The neurons before the knee exceed
    it.
    """
    ordered = flat(scores).clamp_min(0).sort(descending=True).values
    if ordered[0] <= 0:
        return 0.0
    chord = torch.linspace(1, 0, len(ordered))
    return float(ordered[int((chord - ordered / ordered[0]).argmax())])


def null(without: Sequence[Scores], share: float = 0.01) -> float:
    """The score that at most ``share`` of the scores on photos without the concept exceed."""
    if not without:
        raise MethodError("thresholds='null' needs photos without the concept: null=[run, …].")
    if not 0 < share < 1:
        raise MethodError(f"A share is between 0 and 1, not {share}.")
    ordered = torch.cat([flat(scores) for scores in without]).sort(descending=True).values
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])
