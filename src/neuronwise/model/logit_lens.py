"""What each layer's feed-forward block writes into the residual stream at the last position, read as tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.model.direct import DirectPath
from neuronwise.model.hooks import Hooks
from neuronwise.model.passes import frozen_parameters
from neuronwise.model.prompt import Inputs
from neuronwise.model.tail import Tail
from neuronwise.model.writers import Site

if TYPE_CHECKING:
    from neuronwise.model.model import Model

NOT_SUPPORTED = ", so log_prob_increase is not supported for it; use method='contribution'."


class LogitLens:
    """The streams of one pass at its last position, what was written into them there, and what it is read as.

    ``tail`` reads a stream. Raises ``MethodError`` for an architecture whose stream cannot be read so.
    """

    def __init__(self, model: Model, inputs: Inputs) -> None:
        self.model = model
        with frozen_parameters(model.module), Hooks() as hooks, torch.enable_grad():
            path = DirectPath(model.module, model.blocks, hooks)
            self.tail = Tail(model, hooks, [-1], NOT_SUPPORTED)
            logits = model.forward(inputs, rows=[-1])
        self._leaves, self._outputs = path.leaves, path.outputs
        self._maps: dict[Site, Tensor] = {}
        self.tail.fit(logits)

    def residual_before(self, layer: int) -> Tensor:
        """(d,) float32: the stream after the layer, without what its feed-forward neurons and biases wrote."""
        stream = self.tail.streams[layer][0].detach().float().cpu()
        for site in dict.fromkeys(writer.site for writer in self.model.blocks[layer].writers):
            output = self._outputs[site]
            written = output.reshape(-1, output.shape[-1])[-1].float().cpu()
            stream = stream - self.into_stream(site, written.unsqueeze(0))[0]
        return stream

    def into_stream(self, site: Site, vectors: Tensor) -> Tensor:
        """Vectors (n, d) as they are written at ``site`` → what arrives in the stream, past post-norms and
        multipliers."""
        if site not in self._maps:
            self._maps[site] = self._diagonal(site)
        return vectors * self._maps[site]

    def _diagonal(self, site: Site) -> Tensor:
        """(d,): how each number written at ``site`` arrives in the stream; refused unless one by one."""
        leaf, stream = self._leaves[site], self.tail.streams[site[0]]
        generator = torch.Generator().manual_seed(0)
        probes = [torch.randn(stream.shape[-1], generator=generator) + 3.0 for _ in range(2)]
        pulled = []
        for probe in probes:
            weights = probe.to(stream.device, stream.dtype).unsqueeze(0)
            gradient = torch.autograd.grad(stream, leaf, weights, retain_graph=True)[0]
            pulled.append(gradient.reshape(-1, gradient.shape[-1])[-1].float().cpu())
        diagonal = pulled[0] / probes[0]
        tolerance = 1e-3 if leaf.dtype == torch.float32 else 5e-2
        if (pulled[1] - diagonal * probes[1]).norm() > tolerance * pulled[1].norm():
            raise MethodError(
                f"What layer {site[0]} of {self.model.name} writes is mixed on its way into the stream{NOT_SUPPORTED}"
            )
        return diagonal
