"""Localization against truth: log p of a word when its top K neurons are taken away, or when only they are kept."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError, NeuronwiseError, NonFiniteError
from neuronwise.intervene import mean_ablate, suppress
from neuronwise.model.last_position import LastPosition
from neuronwise.model.passes import edit_input
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron, NeuronSet

if TYPE_CHECKING:
    from neuronwise.model import Model, Run
    from neuronwise.model.run import Target

COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
BATCH = {"predicting": 128, "all": 8}  # copies side by side: of one position, or of the whole sequence
Fill = Mapping[str, Tensor]  # writer → (width,) what a neuron's activation becomes when it is taken away


class Ablation:
    """One word of one run, read with sets of feed-forward neurons taken away.

    A neuron that is taken away has the activation of ``fill`` (0 without one; ``mean_fill`` gives means), at the
    position that predicts the word (``positions="predicting"``, which leaves what was read before as it is), or at
    all positions of the sequence up to there ("all"). Attention, embeddings and biases are never touched. ``before``
    is log p of the word (nats) with everything there, ``none`` with every neuron of every layer taken away.

    A routed expert's neurons are taken away by their value vectors, one set after another; what takes their place is
    written whichever experts the router chose. Raises ``MethodError`` where such a model keeps no cache of the earlier
    positions, so that they would change too.
    """

    def __init__(
        self, model: Model, run: Run, target: Target, *, fill: Fill | None = None, positions: str = "predicting"
    ) -> None:
        if positions not in BATCH:
            raise MethodError(f"positions={positions!r} is unknown; choose {' or '.join(BATCH)}.")
        self.model, self.target, self.fill, self.positions = model, target, fill or {}, positions
        self._last = LastPosition(model, run.forced_inputs(target.position))
        routed = any(writer.expert is not None for writer in model.writers)
        if positions == "all":
            self._last.cache = None  # what was read before changes too: whole sequences
        elif routed and self._last.cache is None:
            raise MethodError(f"{model.name} has routed experts and keeps no cache; use positions='all'.")
        self._size = 1 if routed else BATCH[positions]
        self.before = float(self._last.logits.log_softmax(-1)[target.token_id])
        self.none = self.only([()])[0]

    def without(self, sets: Iterable[Iterable[Neuron]]) -> list[float]:
        """log p of the word with each set of neurons taken away."""
        return self._read(sets, keep=False)

    def only(self, sets: Iterable[Iterable[Neuron]]) -> list[float]:
        """log p of the word with all neurons of all layers taken away but those of each set."""
        return self._read(sets, keep=True)

    def _read(self, sets: Iterable[Iterable[Neuron]], keep: bool) -> list[float]:
        listed = [list(one) for one in sets]
        found: list[float] = []
        for start in range(0, len(listed), self._size):
            part = listed[start : start + self._size]
            with self._taken_away(self._masks(part, keep)):
                logits = self._last.evaluate(len(part))
            found += logits.log_softmax(-1)[:, self.target.token_id].tolist()
        if not all(map(math.isfinite, found)):
            raise NonFiniteError("A log-probability is not finite; load the model with dtype=torch.float32.")
        return found

    def _masks(self, sets: Sequence[Sequence[Neuron]], keep: bool) -> dict[Writer, Tensor]:
        """Writer → (sets, width): which activations are replaced."""
        places: dict[Writer, tuple[list[int], list[int]]] = {}
        for row, neurons in enumerate(sets):
            for neuron in neurons:
                writer = self.model.writer(neuron)
                rows, columns = places.setdefault(writer, ([], []))
                rows.append(row)
                columns.append(neuron.unit - writer.first)
        masks = {}
        for writer in self.model.writers if keep else places:
            mask = torch.full((len(sets), writer.width), keep)
            mask[places.get(writer, ([], []))] = not keep
            masks[writer] = mask
        return masks

    @contextlib.contextmanager
    def _taken_away(self, masks: Mapping[Writer, Tensor]) -> Iterator[None]:
        """Within the body the activations of each copy that its row of ``masks`` marks are replaced."""
        routed: dict[Neuron, float] = {}
        with contextlib.ExitStack() as stack:
            for writer, mask in masks.items():
                fill = self.fill.get(str(writer))
                values = torch.zeros(writer.width) if fill is None else fill
                if writer.expert is None:
                    change = partial(self._replaced, mask=mask, fill=values)
                    layer = self.model.blocks[writer.layer].module
                    stack.enter_context(edit_input(writer.module, change, within=layer))
                else:  # one copy: its neurons are taken away by their value vectors
                    columns = mask[0].nonzero().flatten().tolist()
                    routed |= {writer.neuron(column): float(values[column]) for column in columns}
            if any(routed.values()):
                stack.enter_context(mean_ablate(self.model, list(routed), routed))
            elif routed:
                stack.enter_context(suppress(self.model, list(routed)))
            yield

    def _replaced(self, inputs: Tensor, mask: Tensor, fill: Tensor) -> Tensor:
        activations = inputs.clone().reshape(len(mask), -1, inputs.shape[-1])
        mask, fill = mask.to(inputs.device)[:, None], fill.to(inputs.device, inputs.dtype)
        rows = slice(-1, None) if self.positions == "predicting" else slice(None)
        activations[:, rows] = torch.where(mask, fill, activations[:, rows])
        return activations.reshape(inputs.shape)


def mean_fill(model: Model, runs: Iterable[tuple[Run, Target]]) -> dict[str, Tensor]:
    """(width,) mean activations of every writer's neurons over the positions that predict some words.

    A routed expert's count with the router's weight, 0 where it was not chosen.
    """
    sums = {str(writer): torch.zeros(writer.width) for writer in model.writers}
    count = 0
    for run, target in runs:
        activations = run.activations(target.position)
        for writer in model.writers:
            fired = writer.fired(activations)
            if fired is not None:
                sums[str(writer)] += fired.cpu()
        count += 1
    if not count:
        raise MethodError("A mean needs one run or more.")
    return {name: total / count for name, total in sums.items()}


@dataclass(frozen=True)
class Curves:
    """log p (nats) of a word over ``counts``: ``deletion`` without its top K neurons, ``insertion`` with only them.

    ``before``: with everything there; ``none``: with every feed-forward neuron taken away. ``found`` is the number of
    neurons that were ranked: of a set with fewer than K all are taken, so its curve is level from there.
    """

    counts: tuple[int, ...]
    before: float
    none: float
    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    found: int

    @property
    def drops(self) -> tuple[float, ...]:
        """before − deletion: what the word loses, in nats."""
        return tuple(self.before - value for value in self.deletion)

    @property
    def gains(self) -> tuple[float, ...]:
        """insertion − none: what the kept neurons give back, in nats."""
        return tuple(value - self.none for value in self.insertion)

    @property
    def deletion_area(self) -> float:
        """Mean drop over log K: large where few neurons carry the word."""
        return area(self.counts, self.drops)

    @property
    def insertion_area(self) -> float:
        """Mean gain over log K: large where few neurons suffice for the word."""
        return area(self.counts, self.gains)


def curves(ablation: Ablation, ranked: NeuronSet, counts: Sequence[int] = COUNTS) -> Curves:
    """Deletion and insertion curves of a ranked set, best neuron first, over ``counts`` (rising, from 1)."""
    return all_curves(ablation, {"": ranked}, counts)[""]


def all_curves(
    ablation: Ablation, ranked: Mapping[str, NeuronSet], counts: Sequence[int] = COUNTS
) -> dict[str, Curves]:
    """``curves`` of several sets of one word, all evaluated side by side."""
    _require_rising(counts)
    cells = [(name, min(k, len(found))) for name, found in ranked.items() for k in counts]
    distinct = list(dict.fromkeys(cells))
    sets = [ranked[name].neurons[:k] for name, k in distinct]
    gone, kept = (dict(zip(distinct, read(sets), strict=True)) for read in (ablation.without, ablation.only))
    return {
        name: Curves(
            tuple(counts),
            ablation.before,
            ablation.none,
            tuple(gone[name, min(k, len(found))] for k in counts),
            tuple(kept[name, min(k, len(found))] for k in counts),
            len(found),
        )
        for name, found in ranked.items()
    }


def shares_lost(
    ablation: Ablation, ranked: Mapping[str, NeuronSet], counts: Sequence[int] = COUNTS
) -> dict[str, list[float]]:
    """1 − p after / p before of the word, over ``counts`` of each set's first neurons taken away."""
    sizes = {name: [min(k, len(found)) for k in counts] for name, found in ranked.items()}
    after = iter(ablation.without(ranked[name].neurons[:k] for name, those in sizes.items() for k in those))
    return {name: [1 - math.exp(next(after) - ablation.before) for _ in those] for name, those in sizes.items()}


def area(counts: Sequence[int], values: Sequence[float]) -> float:
    """The mean height of a curve over log K between its first and last count, by trapezoids.

    The area under the curve over log K, divided by its width, so that it is in the unit of the values and does not
    depend on the base of the logarithm. A single count gives its value.
    """
    _require_rising(counts)
    if len(values) != len(counts):
        raise NeuronwiseError(f"{len(values)} values do not go with {len(counts)} counts.")
    if len(counts) == 1:
        return float(values[0])
    steps = itertools.pairwise([(math.log(k), value) for k, value in zip(counts, values, strict=True)])
    total = sum((right - left) * (low + high) / 2 for (left, low), (right, high) in steps)
    return total / math.log(counts[-1] / counts[0])


def _require_rising(counts: Sequence[int]) -> None:
    if not counts or counts[0] < 1 or any(b <= a for a, b in itertools.pairwise(counts)):
        raise MethodError(f"counts are {list(counts)}; they are numbers of neurons from 1, each above the last.")
