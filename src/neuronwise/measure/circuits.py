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
from neuronwise.model.last_position import UNABLE, LastPosition, agree
from neuronwise.model.passes import Change, edit_input
from neuronwise.model.writers import Writer

if TYPE_CHECKING:
    from neuronwise.model import Model, Run
    from neuronwise.model.run import Target

BATCH = 2048  # rows of the sequences that are read side by side
LONG = 32  # rows from which it pays to read those before the last once for many sets
COPIES = 2  # that tell whether an architecture gives the same side by side as alone
Numbers = NDArray[np.float64]
Grid = Mapping[Writer, Tensor]  # (rows, width) for each writer: a number for each neuron at each position


class Kept:
    """m of one run with every neuron at every position replaced by ``fill``, but those that are kept.

    m is the logit of ``weights`` (token id → weight), such as a target less its alternatives. ``fill`` is (width,), or
    (rows, width) up to the predicting position, for each writer; 0 where a writer is missing. ``whole`` is m of the run
    as it is, ``nothing`` with no neuron kept. Attention, embeddings and biases are never touched. Raises
    ``MethodError`` for a model with routed experts, whose neurons have no activation to be replaced side by side.
    """

    @torch.no_grad()
    def __init__(self, model: Model, run: Run, target: Target, weights: Mapping[int, float], fill: Grid) -> None:
        if any(writer.expert is not None for writer in model.writers):
            raise MethodError(f"{model.name} has routed experts; curves of circuits are for dense neurons.")
        self.model, self.weights = model, dict(weights)
        self.rows = len(rows_of(run, target, "all"))
        self._inputs = run.forced_inputs(target.position)
        zero = torch.zeros(())
        self._fill = {one: fill.get(one, zero).expand(self.rows, one.width) for one in model.writers}
        self._last: dict[bool, LastPosition] = {}
        whole = self._copies(1)
        self._size = self._side_by_side(whole[0].float())
        self.whole = self._read(whole)[0]
        self.nothing = self.kept([{}])[0]

    @torch.no_grad()
    def kept(self, sets: Sequence[Grid]) -> list[float]:
        """m for each set of kept neurons: (rows, width) bool for each writer, none where a writer is missing."""
        found = [math.nan] * len(sets)
        shared: dict[bool | None, list[int]] = {}
        for number, one in enumerate(sets):
            shared.setdefault(self._before_last(one), []).append(number)
        for before, numbers in shared.items():
            last = None if before is None or self.rows < LONG else self._from_last(before)
            size = self._size if last is None else BATCH
            for start in range(0, len(numbers), size):
                part = numbers[start : start + size]
                values = self._evaluated([sets[number] for number in part], last)
                for number, value in zip(part, values, strict=True):
                    found[number] = value
        if not all(map(math.isfinite, found)):
            raise NonFiniteError("A logit is not finite; load the model with dtype=torch.float32.")
        return found

    def _before_last(self, one: Grid) -> bool | None:
        """Whether all neurons before the last position are kept, or none (False); None where only some are."""
        parts = [one[writer][:-1] for writer in self.model.writers if writer in one]
        if not any(bool(part.any()) for part in parts):
            return False
        return True if len(parts) == len(self.model.writers) and all(bool(part.all()) for part in parts) else None

    def _from_last(self, all_kept: bool) -> LastPosition | None:
        """Sets that differ at the last position alone share what was read before it; None where a model cannot."""
        if all_kept not in self._last:
            fills = {} if all_kept else {one: partial(_filled, fill=own) for one, own in self._fill.items()}
            with self._changed(fills):
                self._last[all_kept] = LastPosition(self.model, self._inputs)
        return self._last[all_kept] if self._last[all_kept].cache is not None else None

    def _evaluated(self, sets: Sequence[Grid], last: LastPosition | None) -> list[float]:
        rows = slice(None) if last is None else slice(-1, None)
        none = torch.zeros((), dtype=torch.bool)
        changes: dict[Writer, Change] = {}
        for writer, fill in self._fill.items():
            masks = [one.get(writer, none).expand(self.rows, writer.width)[rows] for one in sets]
            changes[writer] = partial(_replaced, kept=torch.stack(masks), fill=fill[rows])
        with self._changed(changes):
            return self._read(self._copies(len(sets)) if last is None else last.evaluate(len(sets)))

    def _copies(self, count: int) -> Tensor:
        """(count, V) logits at the last position of copies of the run, which part where the first layer begins."""
        first = self.model.blocks[0].module
        with edit_input(first, lambda hidden: hidden.expand(count, *hidden.shape[1:])):
            return self.model.forward(self._inputs, rows=[-1])[:, -1]

    def _side_by_side(self, whole: Tensor) -> int:
        """How many copies one pass takes: one for an architecture that gives something else in a batch."""
        try:
            read = self._copies(COPIES)
        except UNABLE:
            return 1
        same = len(read) == COPIES and all(agree(self.model, copy, whole) for copy in read)
        return max(1, BATCH // self.rows) if same else 1

    def _read(self, logits: Tensor) -> list[float]:
        values = logits[:, list(self.weights)].float().cpu() @ torch.tensor(list(self.weights.values()))
        return values.tolist()

    @contextlib.contextmanager
    def _changed(self, changes: Mapping[Writer, Change]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for writer, change in changes.items():
                stack.enter_context(edit_input(writer.module, change, within=self.model.blocks[writer.layer].module))
            yield


def _replaced(inputs: Tensor, kept: Tensor, fill: Tensor) -> Tensor:
    """Copies (n, rows, width) with what is not ``kept`` at its ``fill`` (rows, width)."""
    activations = inputs.reshape(kept.shape)
    return torch.where(kept.to(inputs.device), activations, fill.to(inputs)).reshape(inputs.shape)


def _filled(inputs: Tensor, fill: Tensor) -> Tensor:
    """All at the fill, in the passes of ``LastPosition``: all rows, all but the last, or copies of the last."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    own = fill[: len(rows)] if len(rows) >= len(fill) - 1 else fill[-1:]
    return own.to(inputs).expand_as(rows).reshape(inputs.shape)


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


def circuit_curves(
    kept: Sequence[Kept], rankings: Mapping[str, Grid], counts: Sequence[int]
) -> list[dict[str, CircuitCurves]]:
    """The curves of several rankings of one word under each of several fills, all read side by side.

    ``rankings``: for each a number for every neuron at every position, the largest kept first. What is negative or
    missing is never kept, so that a curve is level once all that its ranking has is kept. ``counts`` (rising, from 1)
    stop below the number of pairs.
    """
    writers = kept[0].model.writers
    total = kept[0].rows * sum(writer.width for writer in writers)
    counts = [count for count in counts if count < total]
    pairs = [pair for ranking in rankings.values() for pair in _firsts(ranking, kept[0], counts)]
    results: list[dict[str, CircuitCurves]] = []
    for one in kept:
        values = one.kept([*(first for first, _ in pairs), *(rest for _, rest in pairs)])
        found: dict[str, CircuitCurves] = {}
        for number, name in enumerate(rankings):
            own = slice(number * len(counts), (number + 1) * len(counts))
            ours, others = tuple(values[: len(pairs)][own]), tuple(values[len(pairs) :][own])
            found[name] = CircuitCurves(tuple(counts), ours, others, one.whole, one.nothing, total)
        results.append(found)
    return results


def _firsts(ranking: Grid, kept: Kept, counts: Sequence[int]) -> Iterator[tuple[Grid, Grid]]:
    """The first K pairs of a ranking and all others, for each K: (rows, width) bool for each writer."""
    shapes = {writer: (kept.rows, writer.width) for writer in kept.model.writers}
    flat = torch.cat([ranking[one].flatten() if one in ranking else torch.full(shape, -1.0).flatten()
                      for one, shape in shapes.items()])  # fmt: skip
    least = flat.topk(counts[-1]).values[-1] if counts else flat.new_zeros(())
    able = torch.nonzero((flat >= least) & (flat >= 0)).flatten()  # ties as well: the first of them counts
    order = able[torch.sort(flat[able], descending=True, stable=True).indices]
    for count in counts:
        mask = torch.zeros(len(flat), dtype=torch.bool)
        mask[order[:count]] = True
        yield _by_writer(mask, shapes), _by_writer(~mask, shapes)


def _by_writer(flat: Tensor, shapes: Mapping[Writer, tuple[int, int]]) -> Grid:
    parts = flat.split([rows * width for rows, width in shapes.values()])
    return {writer: part.reshape(shape) for (writer, shape), part in zip(shapes.items(), parts, strict=True)}
