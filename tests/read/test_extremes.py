"""Top tokens by pieces of the vocabulary are the top tokens."""

from __future__ import annotations

import pytest
import torch

from neuronwise.model.lengths import Centered
from neuronwise.read import extremes


@pytest.mark.parametrize("vocabulary", [7, 1000, 4096, 10_001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pieces_give_what_the_whole_gives(vocabulary: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    unembedding = torch.randn(vocabulary, 24, generator=generator, dtype=dtype)
    vectors = torch.randn(1030, 24, generator=generator, dtype=dtype)
    expected = (vectors.double() @ unembedding.double().T).argsort(dim=1, descending=True)[:, :5]
    assert extremes.top_tokens(vectors, unembedding, 5) == expected.tolist()
    rows = torch.nn.functional.normalize(unembedding.double() - unembedding.double().mean(0), dim=1)
    order = (vectors.double() @ rows.T).argsort(dim=1, descending=True)
    if dtype == torch.float64:  # in which nothing is so close that float32 orders it otherwise
        return
    highest, lowest = extremes.extreme_tokens(vectors, unembedding, 5, centered=Centered.of(unembedding))
    near = [(highest, order[:, :5]), (lowest, order.flip(1)[:, :5])]
    for found, expected in near:
        same = torch.tensor(found) == expected
        assert float(same.float().mean()) > 0.999
