"""Evidence by lens: the word as it can be read at the photo's tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.contrast import contrasted
from neuronwise.model.direct import logit_scale
from neuronwise.model.passes import inputs_of, outputs_of
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run, Target
from neuronwise.read.evidence.method import EvidenceMethod


def lens(
    run: Run, targets: Sequence[Target], tokens: PhotoTokens, *, contrast: Sequence[str | int] | int = 10
) -> Tensor:
    """log p(t) at each image token's own row, less the mean log p of the word's alternatives there (nats, [TAM]).

    ``contrast``: the alternatives, tokens or the number of the model's own where the word is predicted. In the
    difference the normalizer cancels, so it is taken of logits, before any soft cap. One pass. Raises ``MethodError``
    for a model whose decoder has no rows at the image's tokens.
    """
    model = run.model
    if tokens.readers:
        raise MethodError(
            f"The decoder of {model.name} reads the photo by cross-attention and has no rows for it, so there is "
            "nothing to read there; use by='occlusion'."
        )
    weights = [contrasted(model, run, target, contrast) for target in targets]
    with torch.no_grad(), inputs_of(model.head) as streams, outputs_of(model.head) as seen:
        logits = model.forward(run.forced_inputs(), rows=[-1])
    scale = logit_scale(logits, seen[-1])
    bias = getattr(model.head, "bias", None)
    rows = streams[-1].reshape(-1, streams[-1].shape[-1])[tokens.grid.positions.to(streams[-1].device)].float()
    return torch.stack([scale * _read(rows, model.unembedding, bias, own) for own in weights]).cpu()


def _read(rows: Tensor, unembedding: Tensor, bias: Tensor | None, weights: Mapping[int, float]) -> Tensor:
    """(n,) the weighted sum of some logits of rows (n, d), without computing the others."""
    ids = torch.tensor(list(weights), device=unembedding.device)
    shares = torch.tensor(list(weights.values()), device=unembedding.device)
    read = rows @ (shares @ unembedding[ids].float()).to(rows.device)
    return read if bias is None else read + (bias.detach()[ids].float() @ shares).to(rows.device)


METHOD = EvidenceMethod(
    "lens", lens, meaning="log p of {token} less that of its alternatives, read at each image token", unit="nats",
    source="after Token Activation Map (arXiv 2506.23270)", signed=False,
)  # fmt: skip
