"""Scores at every position: one number for each (neuron, position), reduced over positions or ranked as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.locate.scores import Scores
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Site, Writer
from neuronwise.neurons import NeuronSet, ScoredNeuron

POSITIONS = ("predicting", "image", "all")
REDUCTIONS = ("max", "sum")
Positions = int | str | Sequence[int]


@dataclass(frozen=True)
class PositionScores:
    """One writer's scores and activations at some rows of the sequence, both (rows, width).

    Rows that were not routed to an expert are left out.
    """

    writer: Writer
    rows: list[int]
    values: Tensor
    activations: Tensor


def rows_of(run: Run, target: Target, positions: Positions) -> list[int]:
    """The rows of the run's full sequence that a method looks at.

    ``positions``: "predicting", "image", "all" up to the predicting one, or numbers counted from 0 over prompt and
    generated tokens. Raises ``MethodError`` for anything else.
    """
    if positions == "predicting":
        return [run.row(target.position)]
    if positions == "image":
        return run.image_positions.tolist()
    last = run.length + run.row(target.position)
    if positions == "all":
        return list(range(last + 1))
    given = positions if isinstance(positions, list | tuple) else [positions]
    numbers = [one for one in given if isinstance(one, int) and not isinstance(one, bool)]
    if not numbers or len(numbers) < len(given):
        raise MethodError(f"positions={positions!r} is unknown; choose one of {', '.join(POSITIONS)}, or a number.")
    wrong = [one for one in numbers if not 0 <= one <= last]
    if wrong:
        raise MethodError(
            f"Position {wrong[0]} has no part in {target.text!r}: it is predicted at position {last}, from 0 to there."
        )
    return sorted(set(numbers))


def keeps_positions(positions: object) -> bool:
    """Whether scores stay apart by position: not where there is one score for each neuron, "predicting" or None."""
    return positions is not None and positions != "predicting"


def firings(run: Run, rows: Sequence[int], *, weights: bool = False) -> Iterator[PositionScores]:
    """Every writer's activations at ``rows``, as scores; a routed expert's times the router's weight.

    ``weights``: that weight alone in place of the scores, 1 for a dense neuron.
    """
    seen = run.rows(list(rows))
    for writer in run.model.writers:
        fired = writer.fired_rows(seen)
        if fired.rows:
            values = fired.weights[:, None].expand_as(fired.values) if weights else fired.values
            yield PositionScores(writer, [rows[at] for at in fired.rows], values, fired.values)


def times_gradients(parts: Iterable[PositionScores], gradients: Mapping[Site, Tensor]) -> Iterator[PositionScores]:
    """score · ∂y/∂a at each position, y's ``gradients`` being by what is written at each site.

    The chain rule through the linear writer is exact and needs gradients of width d, not f: ∂y/∂a = W_downᵀ ·
    ∂y/∂written. A writer that writes into another branch has 0.
    """
    for part in parts:
        at = gradients.get(part.writer.site)
        read = torch.zeros_like(part.values) if at is None else part.writer.project(at[part.rows])
        yield replace(part, values=part.values * read)


def reduced(parts: Iterable[PositionScores], reduce: str) -> Scores:
    """One score for each neuron, the maximum or the sum over positions; raises ``MethodError`` for another way."""
    if reduce not in REDUCTIONS:
        raise MethodError(f"reduce={reduce!r} is unknown; choose {' or '.join(REDUCTIONS)}.")
    scores = Scores()
    for part in parts:
        values = part.values.sum(0) if reduce == "sum" else part.values.amax(0)
        # An expert's activation is that of the last row that was routed to it.
        activations = part.activations.mean(0) if part.writer.expert is None else part.activations[-1]
        scores.put(part.writer, values, activations)
    return scores


def summed(by_position: Callable[..., Sequence[Iterable[PositionScores]]]) -> Callable[..., list[Scores]]:
    """The function of a method that scores a neuron by the sum of what ``by_position`` gives at each position."""

    @functools.wraps(by_position)
    def scores(*given: object, **options: object) -> list[Scores]:
        return [reduced(parts, "sum") for parts in by_position(*given, **options)]

    return scores


def strongest(
    parts: Iterable[PositionScores],
    top: int | None,
    record: Mapping[str, object] | None = None,
    *,
    by_size: bool = False,
) -> NeuronSet:
    """The ``top`` (neuron, position) pairs (all for None) of highest score, or of largest |score|.

    Ties are broken by (layer, expert, unit, position). Raises ``NonFiniteError`` and, for a count below 1,
    ``MethodError``.
    """
    if top is not None and top < 1:
        raise MethodError(f"top is {top}; ask for 1 neuron or more.")
    found: list[tuple[float, ScoredNeuron]] = []
    for part in sorted(parts, key=lambda part: part.writer.neuron(0)):
        if not torch.isfinite(part.values).all():
            raise NonFiniteError(f"Scores in {part.writer} are not finite; load the model with dtype=torch.float32.")
        flat = part.values.T.flatten()  # by neuron, then by position: a stable sort keeps that order
        keys = flat.abs() if by_size else flat
        best = torch.sort(keys, descending=True, stable=True).indices[:top]
        fired = part.activations.T.flatten()[best]
        rows = zip(best.tolist(), keys[best].tolist(), flat[best].tolist(), fired.tolist(), strict=True)
        for at, key, score, activation in rows:
            column, place = divmod(at, len(part.rows))
            found.append((key, ScoredNeuron(part.writer.neuron(column), score, activation, part.rows[place])))
    found.sort(key=lambda one: -one[0])
    return NeuronSet(tuple(member for _, member in found[:top]), dict(record or {}))
