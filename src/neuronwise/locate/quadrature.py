"""Sums of a smooth function over many even steps, from few of its values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """Σ_{k=1..m} f(k/m), m = ``steps``, from f at the n points ``at`` (n,).

    ``rows`` @ f is, first, the sum, and behind it m times f's coefficients 1 to n − 1 in the orthonormal polynomials of
    the m steps: none for a rule that is the sum itself.
    """

    steps: int
    at: Tensor
    rows: Tensor

    def error(self, sizes: Tensor) -> Tensor:
        """What the sum may miss, where ``sizes`` (n, ...) are those of ``rows`` @ f: a careful guess, no bound.

        The rule's first error is coefficient 2n. The last two coefficients are taken to go on falling as they fell from
        the first on, or as they fell over the three before, whichever is slower.
        """
        if len(sizes) == 1:
            return torch.zeros_like(sizes[0])
        n = len(sizes)
        last, before, first = sizes[-2:].amax(0), sizes[-5:-3].amax(0).clamp_min(1e-30), sizes[0].clamp_min(1e-30)
        fall = torch.maximum((last / before) ** (1 / 3), (last / first) ** (1 / (n - 1)))
        return last * fall.clamp(max=1) ** (n + 1)


def every(steps: int) -> Rule:
    """The sum itself."""
    return Rule(steps, torch.arange(1, steps + 1) / steps, torch.ones(1, steps))


def gauss(steps: int, nodes: int) -> Rule:
    """Gauss' rule for the sum: exact for polynomials of degree 2 · ``nodes`` − 1.

    Its points are the eigenvalues of the Jacobi matrix (Golub and Welsch 1969) of the polynomials that are orthogonal
    on even steps (Gram, discrete Chebyshev). Takes 6 nodes or more, and fewer than ``steps``.
    """
    k = torch.arange(1, nodes, dtype=torch.float64)
    beside = (k**2 * (steps**2 - k**2) / (4 * (4 * k**2 - 1))).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    rows = steps * vectors[0] * vectors
    return Rule(steps, ((values + (steps + 1) / 2) / steps).float(), rows.float())
