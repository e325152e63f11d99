"""The tokens whose unembeddings point most along a vector and most against it, for many vectors at once."""

from __future__ import annotations

import torch
from torch import Tensor

from neuronwise.model.lengths import Centered

CHUNK = 4096  # rows of the unembedding at a time: the scores of all tokens at once are as large as a model
BLOCK = 64  # columns that are looked at by their largest first
NEAR = 0.03  # of the mean's length: rows less far from it lose digits in a difference of products
Ids = list[list[int]]


def top_tokens(vectors: Tensor, unembedding: Tensor, k: int) -> Ids:
    """Ids of the ``k`` largest of U·v for each row of ``vectors`` (n, d), largest first; U is (V, d)."""
    return extreme_tokens(vectors, unembedding, k)[0]


@torch.no_grad()
def extreme_tokens(
    vectors: Tensor, unembedding: Tensor, k: int, *, centered: Centered | None = None
) -> tuple[Ids, Ids]:
    """Ids of the ``k`` largest and of the ``k`` smallest of U·v for each row of ``vectors`` (n, d), farthest first.

    ``centered``: of cos(U′, v) instead, U′ the unembedding (V, d) with its mean row taken off.
    """
    vectors = vectors.to(unembedding.device, unembedding.dtype if centered is None else torch.float32)
    highest: Ids = []
    lowest: Ids = []
    for group in vectors.split(1024):
        ends = _extremes(group, unembedding, k, centered)
        highest += ends[0]
        lowest += ends[1]
    return highest, lowest


def _extremes(vectors: Tensor, unembedding: Tensor, k: int, centered: Centered | None) -> tuple[Ids, Ids]:
    ends = [_Farthest(vectors, k), _Farthest(vectors, k)]
    for start in range(0, len(unembedding), CHUNK):
        rows = unembedding[start : start + CHUNK]
        scores = _product(vectors, rows) if centered is None else _cosines(vectors, rows, start, centered)
        ends[0].add(scores, start)
        ends[1].add(scores.neg_(), start)
    return ends[0].ids.tolist(), ends[1].ids.tolist()


def _cosines(vectors: Tensor, rows: Tensor, start: int, centered: Centered) -> Tensor:
    """cos(U′, v) but for the lengths of v; the mean is taken off the products, which are fewer than a row's numbers."""
    rows, lengths = rows.float(), centered.lengths[start : start + len(rows)]
    if float(lengths.min()) < NEAR * float(centered.mean.norm()):
        products = _product(vectors, rows - centered.mean)  # what is left of such a row, its products would not show
    else:
        products = _product(vectors, rows).sub_((vectors @ centered.mean)[:, None])
    return products.div_(lengths.clamp_min(1e-12))


class _Farthest:
    """The ``k`` largest scores so far, with the tokens that have them; of equal ones the first."""

    def __init__(self, vectors: Tensor, k: int) -> None:
        self.k = k
        self.best = vectors.new_empty(len(vectors), 0)
        self.ids = torch.empty(len(vectors), 0, device=vectors.device, dtype=torch.long)

    def add(self, scores: Tensor, start: int) -> None:
        values, indices = _largest(scores, self.k)
        best, order = torch.cat([self.best, values], dim=1).sort(dim=1, descending=True, stable=True)
        self.ids = torch.cat([self.ids, indices + start], dim=1).gather(1, order)[:, : self.k]
        self.best = best[:, : self.k]


def _largest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and columns of the ``k`` largest of each row: they are in the ``k`` blocks whose largest are largest."""
    count, width = scores.shape
    if width % BLOCK or width // BLOCK <= k:
        return scores.topk(min(k, width), dim=1)
    blocks = scores.view(count, -1, BLOCK)
    chosen = blocks.amax(2).topk(k, dim=1).indices
    values, order = blocks[torch.arange(count, device=scores.device)[:, None], chosen].flatten(1).topk(k, dim=1)
    return values, chosen.gather(1, order // BLOCK) * BLOCK + order % BLOCK


def _product(vectors: Tensor, rows: Tensor) -> Tensor:
    """vectors @ rows.T; on CPUs by oneDNN, which is twice as fast in float32 as what torch takes there by itself."""
    on_cpu = vectors.device.type == "cpu" and vectors.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if on_cpu and hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # not public, so not relied on
        return torch.ops.mkldnn._linear_pointwise(vectors, rows, None, "none", [], "")
    return vectors @ rows.T
