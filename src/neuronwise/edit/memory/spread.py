"""One residual written by several layers, each taking its share of what is still missing ([MEMIT] algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.memory.keys import fact_keys, writer_in
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.model.model import Model

Adjust = Callable[[int, Tensor], Tensor]  # layer, keys (f, n) → (f, n), both float64: ΔW = R · adjustedᵀ


def spread(
    model: Model,
    facts: Sequence[Fact],
    layers: Sequence[int],
    prefixes: Sequence[str],
    missing: Callable[[Sequence[Delta]], Tensor],
    share: Callable[[int], float],
    adjust: Adjust,
) -> tuple[tuple[Delta, ...], dict[int, Tensor]]:
    """Deltas of all layers, each solved with those below it acting, and the keys (f, n) that each was solved for.

    ``missing(deltas)`` is (n, d), what the facts still lack at the last layer; ``share(k)`` divides it where k layers
    are left.
    """
    deltas: list[Delta] = []
    kept: dict[int, Tensor] = {}
    for number, layer in enumerate(layers):
        keys = fact_keys(model, facts, layer, prefixes, deltas, halves=True).T.double()
        residual = missing(deltas).T.double() / share(len(layers) - number)
        right = adjust(layer, keys).T
        path = writer_in(model, layer).path
        deltas.append(Delta(layer, path, residual.float().contiguous(), right=right.float().contiguous()))
        kept[layer] = keys
    return tuple(deltas), kept


def least_squares(keys: Tensor, weight: float, statistics: Statistics | None, layer: int) -> Tensor:
    """(weight·C + K Kᵀ)⁻¹ K for K (f, n), through the (n, n) system that the Woodbury identity leaves.

    Without statistics C is the identity times the mean of ‖k‖².
    """
    if statistics is None:
        inner = keys / keys.square().sum(0).mean()
    else:
        inner = statistics.solve(layer, keys)
    system = keys.T @ inner
    system.diagonal().add_(weight)
    return torch.linalg.solve(system, inner.T).T
