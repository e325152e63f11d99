"""Which model this is, and in which state its weights are."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.model.weights import is_plain, plain_weight

if TYPE_CHECKING:
    from neuronwise.model.model import Model

LIKE = 0.03  # relative difference of embedding norms up to which two models count as the same


def likeness(model: Model) -> Tensor:
    """(≤ 64 + 1,) norms of the first input embeddings, and f: what edits of W_down leave as it is."""
    rows = plain_weight(model.module.get_input_embeddings())[:64].float().norm(dim=1).cpu()
    return torch.cat([rows, torch.tensor([float(max(block.width for block in model.blocks))])])


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two ``likeness`` vectors are of the same model."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=LIKE, atol=1e-6)


def weights_hash(model: Model) -> str | None:
    """SHA-256 over all parameters as they are, edits included; None where some are offloaded or quantized.

    About one second for each gigabyte. It is computed anew only when a parameter was replaced or changed in place.
    """
    parameters = list(model.module.named_parameters())
    if not all(is_plain(parameter) for _, parameter in parameters):
        return None
    state = tuple((parameter.data_ptr(), parameter._version) for _, parameter in parameters)

    def computed() -> str:
        digest = hashlib.sha256()
        for name, parameter in parameters:
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    return model.memo(("weights hash", state), computed)
