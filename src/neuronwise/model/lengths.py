"""Lengths that cosines are made of, computed once for a state of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.model.state import state_of
from neuronwise.model.writers import Writer

if TYPE_CHECKING:
    from neuronwise.model.model import Model

CHUNK = 4096  # rows that are made float32 at a time


@dataclass(frozen=True)
class Centered:
    """The mean row (d,) of an unembedding (V, d), and the ``lengths`` (V,) of its rows less that; float32."""

    mean: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, unembedding: Tensor) -> Centered:
        """Of a matrix (V, d)."""
        mean = unembedding.mean(0, dtype=torch.float32)
        return cls(mean, torch.cat([(rows.float() - mean).norm(dim=1) for rows in unembedding.split(CHUNK)]))


def centered(model: Model) -> Centered:
    """Of the model's unembedding."""
    return model.latest("centered unembedding", state_of(model), lambda: Centered.of(model.unembedding))


def vector_lengths(model: Model) -> Mapping[Writer, Tensor]:
    """(width,) float32 for each writer, on the CPU: the lengths of its value vectors."""

    def of(writer: Writer) -> Tensor:
        return torch.linalg.vector_norm(writer.vectors, dim=0, dtype=torch.float32).cpu()

    return model.latest("vector lengths", state_of(model), lambda: {writer: of(writer) for writer in model.writers})
