"""The tokens whose unembeddings point most along a vector, for many vectors at once."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 4096  # rows of the unembedding at a time: the scores of all tokens at once are as large as a model


@torch.no_grad()
def top_tokens(vectors: Tensor, unembedding: Tensor, k: int) -> list[list[int]]:
    """Ids of the ``k`` largest of U·v for each row of ``vectors`` (n, d), largest first; U is (V, d)."""
    vectors = vectors.to(unembedding.device, unembedding.dtype)
    return [ids for group in vectors.split(1024) for ids in _top_tokens(group, unembedding, k)]


def _top_tokens(vectors: Tensor, unembedding: Tensor, k: int) -> list[list[int]]:
    best = vectors.new_empty(len(vectors), 0)
    ids = torch.empty(len(vectors), 0, device=vectors.device, dtype=torch.long)
    for start in range(0, len(unembedding), CHUNK):
        scores = _product(vectors, unembedding[start : start + CHUNK])
        values, indices = scores.topk(min(k, scores.shape[1]), dim=1)
        best, order = torch.cat([best, values], dim=1).sort(dim=1, descending=True, stable=True)
        ids = torch.cat([ids, indices + start], dim=1).gather(1, order)[:, :k]
        best = best[:, :k]
    return ids.tolist()


def _product(vectors: Tensor, rows: Tensor) -> Tensor:
    """vectors @ rows.T; on CPUs by oneDNN, which is twice as fast in float32 as what torch takes there by itself."""
    on_cpu = vectors.device.type == "cpu" and vectors.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if on_cpu and hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # not public, so not relied on
        return torch.ops.mkldnn._linear_pointwise(vectors, rows, None, "none", [], "")
    return vectors @ rows.T
