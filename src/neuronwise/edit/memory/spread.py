"""One residual written by several layers, each taking its share of what is still missing ([MEMIT] algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.memory.keys import fact_keys, look_at, writer_in
from neuronwise.edit.memory.passages import fact_passage
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.edit.memory.value import Ending, ValueSettings, search
from neuronwise.errors import MethodError
from neuronwise.model.model import Model

Adjust = Callable[[int, Tensor], Tensor]  # layer, keys (f, n) → (f, n), both float64: ΔW = R · adjustedᵀ


@dataclass(frozen=True)
class Targets:
    """What ``layer`` should hold at the subjects of ``facts``: ``values`` (n, d), and how each search for one ended.

    ``at`` says where: "stream", the layer's output, or "written", that of its W_down; as the mean over ``prefixes``.
    """

    model: Model
    facts: Sequence[Fact]
    layer: int
    values: Tensor
    endings: Sequence[Ending]
    at: Literal["stream", "written"] = "stream"
    prefixes: Sequence[str] = ("",)

    def missing(self, deltas: Sequence[Delta]) -> Tensor:
        """(n, d): the targets less what the layer holds behind the prefixes with ``deltas`` acting."""
        passages = [fact_passage(self.model, fact, prefix) for fact in self.facts for prefix in self.prefixes]
        seen = look_at(self.model, passages, self.layer, deltas)
        held = (seen.stream if self.at == "stream" else seen.written)[self.layer]
        return self.values - held.reshape(len(self.facts), len(self.prefixes), -1).mean(1)


def search_targets(
    model: Model,
    facts: Sequence[Fact],
    layer: int,
    settings: ValueSettings,
    spots: Sequence[nn.Module] | None = None,
    *,
    relax: bool = False,
    patience: int | None = None,
) -> Targets:
    """The targets of all facts, each found by itself; see ``search`` for ``relax`` and ``patience``.

    Without ``spots`` a vector is added to what the layer gives; else to what each spot gives, of which the first,
    W_down, is what the target is for.
    """
    where = spots or [model.blocks[layer].module]
    found = [search(model, fact, layer, where, settings, relax=relax, patience=patience) for fact in facts]
    values = torch.stack([values[0].target for values, _ in found])
    return Targets(model, facts, layer, values, [ending for _, ending in found], "written" if spots else "stream")


def spread(
    targets: Targets, layers: Sequence[int], prefixes: Sequence[str], share: Callable[[int], float], adjust: Adjust
) -> tuple[tuple[Delta, ...], dict[int, Tensor]]:
    """Deltas of all layers, each solved with those below it acting, and the keys (f, n) that each was solved for.

    ``share(k)`` divides what is missing where k layers are left.
    """
    model, deltas, keys_by_layer = targets.model, [], {}
    for number, layer in enumerate(layers):
        keys = fact_keys(model, targets.facts, layer, prefixes, deltas, halves=True).T.double()
        residual = targets.missing(deltas).T.double() / share(len(layers) - number)
        right = adjust(layer, keys).T
        path = writer_in(model, layer).path
        deltas.append(Delta(layer, path, residual.float().contiguous(), right=right.float().contiguous()))
        keys_by_layer[layer] = keys
    return tuple(deltas), keys_by_layer


def least_squares(keys: Tensor, weight: float, statistics: Statistics | None, layer: int, ridge: float = 0.0) -> Tensor:
    """(weight·C + ridge·I + K Kᵀ)⁻¹ K for K (f, n), through the (n, n) system that the Woodbury identity leaves.

    Without statistics weight·C + ridge·I is the identity times weight times the mean of ‖k‖².
    """
    if statistics is None:
        inner = keys / keys.square().sum(0).mean()
    else:
        inner = statistics.solve(layer, keys, ridge / weight if ridge else 0.0)
    system = keys.T @ inner
    system.diagonal().add_(weight)
    return solve(system, inner.T).T


def solve(system: Tensor, right: Tensor) -> Tensor:
    """X of ``system`` · X = ``right``; raises ``MethodError`` where there is not one such X."""
    found, failed = torch.linalg.solve_ex(system, right)
    if bool(failed):
        raise MethodError(
            "The facts do not determine the change: some have the same keys, and nothing holds the change back; give "
            "each fact once, or take a regularization (mom2_update_weight, L2) above 0."
        )
    return found
