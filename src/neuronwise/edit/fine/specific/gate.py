"""Which neurons answer to the subject and to little else, and with which weights (ours)."""

from __future__ import annotations

import torch
from torch import Tensor

from neuronwise.edit.fine.specific.moments import Moments
from neuronwise.errors import NonFiniteError


def gate(moments: Moments, key: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Units S (n,) and weights k̂ (n,) with k̂·k_S = 1 for the subject's activations ``key`` (f,).

    x = (C_SS + ridge)⁻¹ k_S, k̂ = x / (x·k_S): of all weights that give 1 at the subject those that give the least
    square elsewhere. From all units the larger half by x_i·k_i, the share that each has in the 1, stays until n are
    left.
    """
    units = torch.arange(len(key))
    weights = moments.solve(key, units)
    while len(units) > n:
        shares = weights * key[units]
        units = units[shares.topk(max(n, len(units) // 2)).indices.sort().values]
        weights = moments.solve(key, units)
    reached = weights @ key[units]
    if not float(reached) > 1e-12:
        raise NonFiniteError("The subject's activations are zero or not finite in this layer; choose another layer.")
    return units, weights / reached
