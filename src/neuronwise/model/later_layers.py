"""How what a neuron writes arrives at the output head through all later layers, each linearized where it is."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from neuronwise.errors import MethodError, reason
from neuronwise.model.passes import edit, edit_input, inputs_of, stop_before
from neuronwise.model.products import plain_implementation
from neuronwise.model.prompt import Inputs
from neuronwise.model.weights import dtype_of
from neuronwise.model.writers import Site

if TYPE_CHECKING:
    from neuronwise.model.model import Model

TOGETHER = 32  # vectors pushed in one pass


class LaterLayers:
    """J w, J the mean over ``cases`` of ∂y/∂w: w is written at the last row, y (d′,) is what the head is given there.

    The derivative is that of the real model: attention patterns, norms' scales, gates and routers' weights move with
    w. It is taken forward, one vector a copy. Raises ``MethodError`` for an architecture whose later layers have no
    such derivative.
    """

    def __init__(self, model: Model, cases: Sequence[Inputs]) -> None:
        self.model, self.cases = model, list(cases)
        self._batched: bool | None = None

    def __call__(self, site: Site, vectors: Tensor) -> Tensor:
        """(n, d) as written at a site → (n, d′) float32, the mean over the cases."""
        means = [
            torch.stack([self._pushed(inputs, site, part) for inputs in self.cases]).mean(0)
            for part in vectors.split(TOGETHER)
        ]
        return torch.cat(means)

    def _pushed(self, inputs: Inputs, site: Site, vectors: Tensor) -> Tensor:
        """Side by side where the architecture gives in a batch what it gives alone, found by trying once."""
        if len(vectors) == 1:
            return self._pass(inputs, site, vectors)
        if self._batched is None:
            alone = self._pass(inputs, site, vectors[:1])
            try:
                both = self._pass(inputs, site, vectors[:2])
            except MethodError:
                self._batched = False
            else:
                close = 1e-3 if dtype_of(self.model.module) in (torch.float32, torch.float64) else 5e-2
                self._batched = bool((both[:1] - alone).norm() <= close * alone.norm())
        if self._batched:
            return self._pass(inputs, site, vectors)
        return torch.cat([self._pass(inputs, site, one) for one in vectors.split(1)])

    def _pass(self, inputs: Inputs, site: Site, vectors: Tensor) -> Tensor:
        model, count = self.model, len(vectors)
        layer = model.blocks[site[0]].module

        def widen(hidden: Tensor) -> Tensor:
            return hidden if count == 1 else hidden.expand(count, -1, -1)

        def write(output: Tensor) -> Tensor:
            whole = output.reshape(count, -1, output.shape[-1])
            tangent = torch.zeros_like(whole)
            tangent[:, -1] = vectors.to(whole)
            return forward_ad.make_dual(whole, tangent).reshape(output.shape)

        try:
            with torch.no_grad(), forward_ad.dual_level(), contextlib.ExitStack() as stack:
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # fused attention has no forward derivative
                stack.enter_context(plain_implementation(model.module))
                stack.enter_context(edit_input(layer, widen))  # one copy is enough for the layers below
                stack.enter_context(edit(layer.get_submodule(site[1]), write, within=layer))
                with inputs_of(model.head) as given, stop_before(model.head):
                    model.forward(inputs)
                arrived = forward_ad.unpack_dual(given[-1]).tangent
                arrived = torch.zeros_like(given[-1]) if arrived is None else arrived
                return arrived.reshape(count, -1, arrived.shape[-1])[:, -1].float().clone()
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            raise MethodError(
                f"The later layers of {model.name} cannot be linearized ({reason(error)}); use through='direct path'."
            ) from error
