"""How what a neuron writes arrives at the output head, along the direct path alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from neuronwise.errors import NeuronwiseError
from neuronwise.model.closed_form import closed_form
from neuronwise.model.direct import DirectPath
from neuronwise.model.hooks import Hooks
from neuronwise.model.norms import FrozenNorm, freeze
from neuronwise.model.passes import frozen_parameters, inputs_of
from neuronwise.model.weights import plain_weight
from neuronwise.model.writers import Site

if TYPE_CHECKING:
    from neuronwise.model.model import Model

PROBE = "The"


class DirectMap:
    """The linear map from what is written at a site to what the output head is given, up to a positive factor.

    It holds every gain, centering and projection on the way: norms behind the block, the final norm, a projection to
    the embeddings' width. It is read off a pass over a short text, along which norms' scales are held fixed; they are
    the factor. Where no such pass can be made (a model that reads nothing without a photo), or for a site that it does
    not call, it is the final norm's, as it is where every write meets that norm alone (``closed_form``).
    """

    def __init__(self, model: Model) -> None:
        self.norm = final_norm(model)
        self.rows: dict[Site, Tensor] = {}
        if closed_form(model) is not None:
            return
        try:
            self._trace(model)
        except (NeuronwiseError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
            self.rows = {}

    def _trace(self, model: Model) -> None:
        inputs = model.extend(model.prepare(None, PROBE, chat=False)[0].inputs, [])
        with frozen_parameters(model.module), Hooks() as hooks, torch.enable_grad():
            path = DirectPath(model.module, model.blocks, hooks)
            with inputs_of(model.head) as given:
                model.forward(inputs, rows=[-1])
        arrived = given[-1].reshape(-1, given[-1].shape[-1])[-1]
        # The gradient is linear in what the sum is weighted with, and its own gradient by that is the map.
        self.weights = torch.zeros_like(arrived, requires_grad=True)
        leaves = list(path.leaves.values())
        pulled = torch.autograd.grad(arrived, leaves, self.weights, create_graph=True, allow_unused=True)
        for site, gradient in zip(path.leaves, cast("tuple[Tensor | None, ...]", pulled), strict=True):
            if gradient is not None:
                self.rows[site] = gradient.reshape(-1, gradient.shape[-1])[-1]

    def __call__(self, site: Site, vectors: Tensor) -> Tensor:
        """(n, d) as written at a site → (n, width of the head's input) float32."""
        row = self.rows.get(site)
        if row is None:
            if self.norm is None:
                return vectors.float()
            return self.norm.linear(vectors.to(self.norm.scale.device).float())
        arrived = torch.autograd.grad(row, self.weights, vectors.to(row), retain_graph=True, is_grads_batched=True)
        return arrived[0].detach().float()


def final_norm(model: Model) -> FrozenNorm | None:
    """The norm before the output head, with a scale of 1; None for a model without one, or one of an unknown form."""
    found = model.final_norm
    if found is None:
        return None
    with torch.no_grad():
        probe = torch.randn(4, model.hidden_size, generator=torch.Generator().manual_seed(0)).to(plain_weight(found))
        frozen = freeze(found, probe, found(probe))
    return (
        None if frozen is None else FrozenNorm(torch.ones((), device=probe.device), frozen.gain, None, frozen.centered)
    )
