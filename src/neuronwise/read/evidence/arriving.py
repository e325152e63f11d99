"""What arrives at the photo's tokens in a backward pass: input · gradient, summed over the hidden size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from neuronwise.model.direct import logit_scale
from neuronwise.model.passes import frozen_parameters, outputs_of
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run

# (logits (rows, V) before any soft cap, logits as the model returns them) → the number of each row that is explained
Values = Callable[[Tensor, Tensor], Sequence[Tensor]]


def arriving(run: Run, rows: Sequence[int], tokens: PhotoTokens, values: Values) -> Tensor:
    """(values, n) float32: for each value Σ input · ∂ value / ∂ input over the n parts of the photo, in one pass."""
    leaves: list[Tensor] = []

    def leaf(read: Tensor) -> Tensor:
        if not leaves:  # every layer of cross-attention looks at the same
            leaves.append(read.detach().requires_grad_(True))
        return leaves[0]

    model = run.model
    with frozen_parameters(model.module), torch.enable_grad(), tokens.read_as(leaf), outputs_of(model.head) as seen:
        logits = model.forward(run.forced_inputs(), rows=rows)
    raw = seen[-1] * logit_scale(logits, seen[-1])
    found = []
    for value in values(raw[0], logits[0]):
        (gradient,) = torch.autograd.grad(value, leaves, retain_graph=True)
        product = (gradient.float() * leaves[0].detach().float()).sum(-1)[0].cpu()
        found.append(product[tokens.grid.positions])
    return torch.stack(found)
