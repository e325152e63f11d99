"""How far to go along a line until the target is likely enough, in few tries."""

from __future__ import annotations

import math

FIRST, LONGEST = 12.0, 24.0  # in Adam's steps
GROWTH = 2.0  # from one try to the next
TRIES = 4
OVER = 0.25  # log odds beyond what is enough that are still close to it


class Line:
    """Lengths to try, one after another, until one reaches ``enough`` closely: the log odds are nearly straight in it.

    ``now`` is the probability at length 0, ``rise`` how fast its logarithm grows with the length there.

    >>> while (length := line.next()) is not None:
    ...     line.add(length, probability(length))
    """

    def __init__(self, enough: float, now: float, rise: float) -> None:
        self.enough, self.goal = enough, _log_odds(enough)
        self.rise = rise / max(1 - now, 1e-6)
        self.tried = [(0.0, _log_odds(now))]
        self.shortest: float | None = None  # of those that reach enough

    def add(self, length: float, probability: float) -> None:
        """What came of a length."""
        self.tried.append((length, _log_odds(probability)))
        if probability >= self.enough and (self.shortest is None or length < self.shortest):
            self.shortest = length

    def next(self) -> float | None:
        """The next length to try; None when one is close enough, and when trying on is of no use."""
        if len(self.tried) > TRIES:
            return None
        aim = self.goal + OVER / 2
        if self.shortest is not None:
            far, high = next(one for one in self.tried if one[0] == self.shortest)
            near, low = max(one for one in self.tried if one[0] < far)
            if high <= self.goal + OVER:
                return None
            share = (aim - low) / (high - low)
            return _rounded(near + (far - near) * min(max(share, 0.1), 0.9))
        last, reached = self.tried[-1]
        if len(self.tried) == 1:
            return _rounded(min((aim - reached) / max(self.rise, 1e-9), FIRST))
        before, less = self.tried[-2]
        if reached <= less or last >= LONGEST:
            return None
        length = last + (aim - reached) * (last - before) / (reached - less)
        return _rounded(min(length, GROWTH * last, LONGEST))


def _log_odds(probability: float) -> float:
    held = min(max(probability, 1e-30), 1 - 1e-7)
    return math.log(held / (1 - held))


def _rounded(length: float) -> float:
    return max(round(length, 2), 0.01)
