"""Edits made by chance, the weights before and after them, statistics made by hand: what tests of edits share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import families
from neuronwise.edit import Delta, Edit, column_norms
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.model.model import Model


def tiny(name: str, dtype: torch.dtype = torch.float32) -> tuple[Model, dict[str, Any]]:
    module, inputs = families.tiny(name, dtype)
    return Model(module, name=name), inputs


def random_edit(model: Model, seed: int = 0, neurons: int = 3, low_rank: bool = False) -> Edit:
    generator = torch.Generator().manual_seed(seed)
    deltas = []
    for block in model.blocks[-2:]:
        for writer in block.dense:
            units = torch.randperm(writer.width, generator=generator)[:neurons]
            left = torch.randn(model.hidden_size, neurons, generator=generator)
            right = torch.randn(neurons, writer.width, generator=generator) if low_rank else None
            deltas.append(Delta(block.layer, writer.path, left, None if low_rank else units, right))
        for writer in [writer for writer in block.writers if writer.expert is not None][:2]:
            left = torch.randn(model.hidden_size, neurons, generator=generator)
            units = torch.randperm(writer.width, generator=generator)[:neurons]
            deltas.append(Delta(block.layer, writer.path, left, units, expert=writer.expert))
    return Edit(tuple(deltas), {"method": "random", "model": model.name}, column_norms(model, tuple(deltas)))


def weights(model: Model) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())


class Moments(Statistics):
    """Statistics made by hand: second moments of ``rank`` directions, the same in every layer."""

    def __init__(self, width: int, rank: int, least: float = 0.5) -> None:
        generator = torch.Generator().manual_seed(3)
        square = torch.randn(width, width, generator=generator, dtype=torch.float64)
        self.vectors = torch.linalg.qr(square).Q
        eigenvalues = torch.zeros(width, dtype=torch.float64)
        eigenvalues[:rank] = torch.linspace(least, 2, rank, dtype=torch.float64)
        self.preserved = self.vectors[:, :rank]
        self.moment = self.vectors @ eigenvalues.diag() @ self.vectors.T
        self._factors, self._spectra = {}, {}

    def second_moment(self, layer: int) -> Tensor:
        return self.moment.clone()

    def require(self, model: Model, layers: list[int]) -> None:
        pass

    def record(self) -> dict[str, Any]:
        return {"text": "by hand"}
