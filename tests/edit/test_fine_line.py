"""The search for a length: few tries, the goal just reached, and an end where it cannot be."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from neuronwise.edit.fine.line import LONGEST, TRIES, Line


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def searched(probability: Callable[[float], float], enough: float = 0.9) -> tuple[Line, list[float]]:
    step = 1e-4
    rise = (math.log(probability(step)) - math.log(probability(0.0))) / step
    line, tried = Line(enough, probability(0.0), rise), list[float]()
    while (length := line.next()) is not None:
        tried.append(length)
        line.add(length, probability(length))
    return line, tried


@pytest.mark.parametrize("slope", [0.7, 1.5, 9.0])
def test_straight_log_odds_take_as_many_tries_as_growing_needs(slope: float) -> None:
    line, tried = searched(lambda length: sigmoid(slope * length - 8))
    assert len(tried) <= 2
    assert line.shortest == tried[-1]
    assert 0.9 <= sigmoid(slope * tried[-1] - 8) < 0.93


@pytest.mark.parametrize("bend", [0.03, -0.03])
def test_bent_ones_end_close_to_what_is_enough(bend: float) -> None:
    line, tried = searched(lambda length: sigmoid(1.2 * length + bend * length**2 - 7))
    assert line.shortest is not None
    assert len(tried) <= TRIES
    assert 0.9 <= sigmoid(1.2 * line.shortest + bend * line.shortest**2 - 7) < 0.95


def test_the_shortest_that_reached_enough_is_kept_not_the_last() -> None:
    line = Line(0.9, 0.01, 0.5)
    line.add(10, 0.95)
    line.add(4, 0.91)
    line.add(3, 0.2)
    assert line.shortest == 4


def test_a_line_that_does_not_get_there_is_left() -> None:
    line, tried = searched(lambda length: 0.3 * sigmoid(length - 5) + 1e-4)
    assert line.shortest is None
    assert 1 < len(tried) <= TRIES
    assert max(tried) <= LONGEST
    falling, tried = searched(lambda length: 0.2 * math.exp(-((length - 2) ** 2) / 4) + 1e-4)
    assert falling.shortest is None
    assert len(tried) <= TRIES


def test_more_than_certain_is_never_reached() -> None:
    line, tried = searched(lambda length: sigmoid(length - 4), enough=2.0)
    assert line.shortest is None
    assert len(tried) <= TRIES
