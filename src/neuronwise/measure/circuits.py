"""How much of a word a circuit carries: faithfulness and completeness of neurons at positions, over their number."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.locate.positions import rows_of
from neuronwise.model.last_position import LastPosition
from neuronwise.model.passes import edit_input
from neuronwise.model.writers import Writer

if TYPE_CHECKING:
    from neuronwise.locate.baseline import Baseline
    from neuronwise.model import Model, Run
    from neuronwise.model.run import Target

BATCH = 512  # rows of the sequences that are read side by side
Numbers = NDArray[np.float64]
Grid = Mapping[Writer, Tensor]  # (rows, width) for each writer: a number for each neuron at each position


class Kept:
    """m of one run with every neuron at every position at its baseline, but those that are kept.

    m is the logit of ``weights`` (token id → weight), such as a target less its alternatives. ``whole`` is m of the run
    as it is, ``nothing`` with no neuron kept. A baseline of None is 0. Attention, embeddings and biases are never
    touched. Raises ``MethodError`` for a model with routed experts, whose neurons have no activation to be replaced
    side by side.
    """

    def __init__(
        self, model: Model, run: Run, target: Target, weights: Mapping[int, float], baseline: Baseline | None
    ) -> None:
        if any(writer.expert is not None for writer in model.writers):
            raise MethodError(f"{model.name} has routed experts; curves of circuits are for dense neurons.")
        self.model, self.baseline, self.weights = model, baseline, dict(weights)
        self.rows = len(rows_of(run, target, "all"))
        self._whole = LastPosition(model, run.forced_inputs(target.position))
        self._whole.cache = None  # what was read before changes too: whole sequences
        self.whole = self._read(self._whole.logits[None])[0]
        self.nothing = self.kept([{}])[0]

    def kept(self, sets: Sequence[Grid]) -> list[float]:
        """m for each set of kept neurons: (rows, width) bool for each writer, none where a writer is missing."""
        found: list[float] = []
        size = max(1, BATCH // self.rows)
        for start in range(0, len(sets), size):
            part = sets[start : start + size]
            with self._at_baseline(part):
                found += self._read(self._whole.evaluate(len(part)))
        if not all(map(math.isfinite, found)):
            raise NonFiniteError("A logit is not finite; load the model with dtype=torch.float32.")
        return found

    def _read(self, logits: Tensor) -> list[float]:
        values = logits[:, list(self.weights)].float().cpu() @ torch.tensor(list(self.weights.values()))
        return values.tolist()

    @contextlib.contextmanager
    def _at_baseline(self, sets: Sequence[Grid]) -> Iterator[None]:
        none = torch.zeros((), dtype=torch.bool)
        with contextlib.ExitStack() as stack:
            for writer in self.model.writers:
                kept = torch.stack([one.get(writer, none).expand(self.rows, writer.width) for one in sets])
                fill = torch.zeros(()) if self.baseline is None else self.baseline.mean(writer)
                change = partial(_replaced, kept=kept, fill=fill)
                within = self.model.blocks[writer.layer].module
                stack.enter_context(edit_input(writer.module, change, within=within))
            yield


def _replaced(inputs: Tensor, kept: Tensor, fill: Tensor) -> Tensor:
    activations = inputs.reshape(len(kept), -1, inputs.shape[-1])
    return torch.where(kept.to(inputs.device), activations, fill.to(inputs)).reshape(inputs.shape)


@dataclass(frozen=True)
class CircuitCurves:
    """m over the numbers of kept (neuron, position) pairs, of ``total`` that there are.

    ``kept``: of the first K of a ranking; ``left``: of all others, without them. ``whole`` and ``nothing`` as of
    ``Kept``.
    """

    counts: tuple[int, ...]
    kept: tuple[float, ...]
    left: tuple[float, ...]
    whole: float
    nothing: float
    total: int

    @property
    def faithfulness(self) -> list[float]:
        """(m(C) − m(∅)) / (m(all) − m(∅)): 1 is the whole word, 0 none of it; below 0 and above 1 happen."""
        return [(value - self.nothing) / (self.whole - self.nothing) for value in self.kept]

    @property
    def completeness(self) -> list[float]:
        """The same of what is left without the first K: 0 where they are all that the word depends on."""
        return [(value - self.nothing) / (self.whole - self.nothing) for value in self.left]


def areas(shares: Numbers, faithfulness: Numbers) -> tuple[Numbers, Numbers]:
    """The areas of the MIB benchmark over the share of pairs kept, by trapezoids from (0, 0) to (1, 1).

    CPR is that under faithfulness (large is good), CMD that between it and 1 (small is good). ``shares`` and
    ``faithfulness`` are (n, K); both areas (n,).
    """
    none, whole = np.zeros((len(shares), 1)), np.ones((len(shares), 1))
    at = np.concatenate([none, shares, whole], axis=1)
    curve = np.concatenate([none, faithfulness, whole], axis=1)
    widths = np.diff(at, axis=1)

    def area(values: Numbers) -> Numbers:
        return (widths * (values[:, 1:] + values[:, :-1]) / 2).sum(axis=1)

    return area(curve), area(np.abs(1 - curve))


def circuit_curves(kept: Kept, rankings: Mapping[str, Grid], counts: Sequence[int]) -> dict[str, CircuitCurves]:
    """The curves of several rankings of one word, all read side by side.

    ``rankings``: for each a number for every neuron at every position, the largest kept first. What is negative or
    missing is never kept, so that a curve is level once all that its ranking has is kept. ``counts`` (rising, from 1)
    stop below the number of pairs.
    """
    total = kept.rows * sum(writer.width for writer in kept.model.writers)
    counts = [count for count in counts if count < total]
    sets = [first for ranking in rankings.values() for first in _firsts(ranking, counts)]
    rests = [{writer: ~first.get(writer, _nowhere(kept, writer)) for writer in kept.model.writers} for first in sets]
    values = kept.kept([*sets, *rests])
    found = {}
    for number, name in enumerate(rankings):
        own = slice(number * len(counts), (number + 1) * len(counts))
        ours, others = tuple(values[: len(sets)][own]), tuple(values[len(sets) :][own])
        found[name] = CircuitCurves(tuple(counts), ours, others, kept.whole, kept.nothing, total)
    return found


def _firsts(ranking: Grid, counts: Sequence[int]) -> Iterator[dict[Writer, Tensor]]:
    """The first K pairs of a ranking, for each K: (rows, width) bool for each writer that it has."""
    flat = torch.cat([values.flatten() for values in ranking.values()])
    ranks = torch.empty(len(flat), dtype=torch.long)
    ranks[torch.sort(flat, descending=True, stable=True).indices] = torch.arange(len(flat))
    parts = ranks.split([values.numel() for values in ranking.values()])
    for count in counts:
        yield {
            writer: (own.reshape(values.shape) < count) & (values >= 0)
            for (writer, values), own in zip(ranking.items(), parts, strict=True)
        }


def _nowhere(kept: Kept, writer: Writer) -> Tensor:
    return torch.zeros(kept.rows, writer.width, dtype=torch.bool)
