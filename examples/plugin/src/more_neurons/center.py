"""How near to its middle each part of the photo is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuronwise.model import Run
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Target
from neuronwise.read.evidence.method import EvidenceMethod


def center(run: Run, targets: Sequence[Target], tokens: PhotoTokens, *, sharpness: float = 1.0) -> Tensor:
    """1 in the middle of the grid and less around it, for every word the same: any map should do better."""
    down, right = (torch.linspace(-1, 1, cells) for cells in (tokens.grid.height, tokens.grid.width))
    near = (-sharpness * (down[:, None] ** 2 + right[None] ** 2)).exp()
    return near.flatten().expand(len(targets), -1)


METHOD = EvidenceMethod("center", center, meaning="how near to the photo's middle a part is", unit="of 1", signed=False)
