"""Evidence by lens: the word as it can be read at the photo's tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.contrast import contrasted
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run, Target
from neuronwise.model.tail import CELLS, read_streams
from neuronwise.read.evidence.method import EvidenceMethod


def lens(
    run: Run,
    targets: Sequence[Target],
    tokens: PhotoTokens,
    *,
    contrast: Sequence[str | int] | int = 10,
    layer: int | None = None,
) -> Tensor:
    """log p(t) at each image token's own row, less the mean log p of the word's alternatives there (nats, [TAM]).

    ``contrast``: the alternatives, tokens or the number of the model's own where the word is predicted. ``layer``: read
    behind this one, not behind the last. One pass, see ``neuronwise.lens``. Raises ``MethodError`` for a model whose
    decoder has no rows at the image's tokens, or whose stream cannot be read, and for a layer that it does not have.
    """
    model = run.model
    if tokens.readers:
        raise MethodError(
            f"The decoder of {model.name} reads the photo by cross-attention and has no rows for it, so there is "
            "nothing to read there; use by='occlusion'."
        )
    if layer is not None and not 0 <= layer < model.num_layers:
        raise MethodError(f"layer is {layer}; {model.name} has layers 0 to {model.num_layers - 1}.")
    weights = [contrasted(model, run, target, contrast) for target in targets]
    tail = read_streams(model, run.forced_inputs(), [*tokens.grid.positions.tolist(), -1])
    streams = tail.streams[-1 if layer is None else layer][:-1]
    ids = list(dict.fromkeys(token for own in weights for token in own))
    read = torch.cat([tail.log_probabilities(part)[:, ids].cpu() for part in streams.split(CELLS)])
    return torch.stack([read @ torch.tensor([own.get(token, 0.0) for token in ids]) for own in weights])


METHOD = EvidenceMethod(
    "lens", lens, meaning="log p of {token} less that of its alternatives, read at each image token", unit="nats",
    source="after Token Activation Map (arXiv 2506.23270)", signed=False,
)  # fmt: skip
