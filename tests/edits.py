"""Edits made by chance, and the weights before and after them: what tests of edits share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import families
from neuronwise.edit import Delta, Edit, column_norms
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
