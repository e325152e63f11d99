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

    @property
    def nodes(self) -> int:
        """n."""
        return len(self.at)

    def error(self, sizes: Tensor, nodes: int | None = None) -> Tensor:
        """What the sum may miss, where ``sizes`` (n, ...) are those of ``rows`` @ f: a careful guess, no bound.

        ``nodes``: what a rule of so many points would. A rule's first error is coefficient 2n − 1. The last two
        coefficients are taken to go on falling as they fell from the first on, or over the three or two before,
        whichever is slowest.
        """
        if len(sizes) == 1:
            return torch.zeros_like(sizes[0])
        n, last = len(sizes), sizes[-2:].amax(0)
        earlier = {n - 1: sizes[0], 3: sizes[-5:-3].amax(0), 2: sizes[-4:-2].amax(0)}
        falls = [(last / before.clamp_min(1e-30)) ** (1 / steps) for steps, before in earlier.items()]
        return last * torch.stack(falls).amax(0).clamp(max=1) ** (2 * (nodes or n) - n)


def every(steps: int) -> Rule:
    """The sum itself."""
    return Rule(steps, torch.arange(1, steps + 1) / steps, torch.ones(1, steps))


def radau(steps: int, nodes: int) -> Rule:
    """Radau's rule for the sum, whose last point is 1: exact for polynomials of degree 2 · ``nodes`` − 2.

    Its points are the eigenvalues of the Jacobi matrix (Golub and Welsch 1969) of the polynomials that are orthogonal
    on even steps (Gram, discrete Chebyshev), whose last entry is such that the last step is one of them (Golub 1973).
    Takes 6 nodes or more, and fewer than ``steps``.
    """
    k = torch.arange(1, nodes, dtype=torch.float64)
    beside = (k**2 * (steps**2 - k**2) / (4 * (4 * k**2 - 1))).sqrt()
    matrix, end = torch.diag(beside, 1) + torch.diag(beside, -1), (steps - 1) / 2
    target = torch.zeros(nodes - 1, dtype=torch.float64)
    target[-1] = beside[-1] ** 2
    matrix[-1, -1] = end + torch.linalg.solve(matrix[:-1, :-1] - end * torch.eye(nodes - 1), target)[-1]
    values, vectors = torch.linalg.eigh(matrix)
    rows = steps * vectors[0] * vectors
    return Rule(steps, ((values + (steps + 1) / 2) / steps).float(), rows.float())
