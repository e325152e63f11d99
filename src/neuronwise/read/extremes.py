"""The tokens whose unembeddings point most along a vector and most against it, for many vectors at once."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 4096  # rows of the unembedding at a time: the scores of all tokens at once are as large as a model
Ids = list[list[int]]


def top_tokens(vectors: Tensor, unembedding: Tensor, k: int) -> Ids:
    """Ids of the ``k`` largest of U·v for each row of ``vectors`` (n, d), largest first; U is (V, d)."""
    return extreme_tokens(vectors, unembedding, k, centered=False)[0]


@torch.no_grad()
def extreme_tokens(vectors: Tensor, unembedding: Tensor, k: int, *, centered: bool) -> tuple[Ids, Ids]:
    """Ids of the ``k`` largest and of the ``k`` smallest of U·v for each row of ``vectors`` (n, d), farthest first.

    ``centered``: of cos(U′, v) instead, U′ the unembedding (V, d) with its mean row taken off.
    """
    mean = unembedding.mean(0, dtype=torch.float32) if centered else None
    vectors = vectors.to(unembedding.device, torch.float32 if centered else unembedding.dtype)
    highest: Ids = []
    lowest: Ids = []
    for group in vectors.split(1024):
        ends = _extremes(group, unembedding, k, mean)
        highest += ends[0]
        lowest += ends[1]
    return highest, lowest


def _extremes(vectors: Tensor, unembedding: Tensor, k: int, mean: Tensor | None) -> tuple[Ids, Ids]:
    ends = [_Farthest(vectors, k), _Farthest(vectors, k)]
    for start in range(0, len(unembedding), CHUNK):
        rows = unembedding[start : start + CHUNK]
        if mean is not None:
            rows = torch.nn.functional.normalize(rows.float() - mean, dim=1)
        scores = _product(vectors, rows)
        ends[0].add(scores, start)
        ends[1].add(-scores, start)
    return ends[0].ids.tolist(), ends[1].ids.tolist()


class _Farthest:
    """The ``k`` largest scores so far, with the tokens that have them; of equal ones the first."""

    def __init__(self, vectors: Tensor, k: int) -> None:
        self.k = k
        self.best = vectors.new_empty(len(vectors), 0)
        self.ids = torch.empty(len(vectors), 0, device=vectors.device, dtype=torch.long)

    def add(self, scores: Tensor, start: int) -> None:
        values, indices = scores.topk(min(self.k, scores.shape[1]), dim=1)
        best, order = torch.cat([self.best, values], dim=1).sort(dim=1, descending=True, stable=True)
        self.ids = torch.cat([self.ids, indices + start], dim=1).gather(1, order)[:, : self.k]
        self.best = best[:, : self.k]


def _product(vectors: Tensor, rows: Tensor) -> Tensor:
    """vectors @ rows.T; on CPUs by oneDNN, which is twice as fast in float32 as what torch takes there by itself."""
    on_cpu = vectors.device.type == "cpu" and vectors.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if on_cpu and hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # not public, so not relied on
        return torch.ops.mkldnn._linear_pointwise(vectors, rows, None, "none", [], "")
    return vectors @ rows.T
