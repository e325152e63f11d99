"""Reading the residual stream as a distribution over tokens, layer by layer, at the last position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuronwise.errors import MethodError
from neuronwise.model.direct import DirectPath, logit_scale
from neuronwise.model.hooks import Args, Hooks, Kwargs, first_output
from neuronwise.model.passes import frozen_parameters
from neuronwise.model.prompt import Inputs
from neuronwise.model.weights import dtype_of
from neuronwise.model.writers import Site

if TYPE_CHECKING:
    from neuronwise.model.model import Model

NOT_SUPPORTED = ", so log_prob_increase is not supported for it; use method='contribution'."


class LogitLens:
    """The stream of one pass at its last position, and the way from any such stream to log-probabilities.

    ``stream[l]`` is what layer l returned, (1, positions, d). Raises ``MethodError`` for an architecture whose stream
    cannot be read so.
    """

    def __init__(self, model: Model, inputs: Inputs) -> None:
        self.model = model
        self.stream: list[Tensor] = []
        self.tail: list[nn.Module] = []
        with frozen_parameters(model.module), Hooks() as hooks, torch.enable_grad():
            path = DirectPath(model.module, model.blocks, hooks)
            self._keep_stream(hooks)
            logits = model.forward(inputs, rows=[-1])[0, -1].detach().float()
        self._leaves, self._outputs = path.leaves, path.outputs
        self._maps: dict[Site, Tensor] = {}
        self._scale, self._cap = 1.0, None
        if any(s.dim() != 3 or s.shape[-1] != model.hidden_size for s in self.stream):
            raise MethodError(
                f"The residual stream of {model.name} is more than one vector of width {model.hidden_size} for each "
                f"position{NOT_SUPPORTED}"
            )
        self._fit_tail(logits)

    def _keep_stream(self, hooks: Hooks) -> None:
        """What every layer returns, and the modules that are called behind the last one."""
        blocks = self.model.blocks

        def left(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
            self.stream.append(first_output(output))

        def behind(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
            if len(self.stream) == len(blocks):
                self.tail.append(module)

        inside = {part for block in blocks for part in block.module.modules()}
        for block in blocks:
            hooks.after(block.module, left)
        for module in self.model.module.modules():
            if module not in inside and not any(True for _ in module.children()):
                hooks.after(module, behind)

    def _fit_tail(self, logits: Tensor) -> None:
        """Scale and soft cap are fitted to the model's own logits; what fits neither is refused."""
        raw = self._raw(self.stream[-1][0, -1].detach().unsqueeze(0))[0]
        logits = logits.to(raw.device)
        self._scale = logit_scale(logits, raw)
        cap = getattr(self.model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
        close = 1e-3 if self.stream[-1].dtype == torch.float32 else 5e-2
        for candidate in (None, cap):
            self._cap = candidate
            if (self._finish(raw) - logits).norm() <= close * logits.norm():
                return
        raise MethodError(
            f"The way from the residual stream of {self.model.name} to its logits is more than norms and one "
            f"product{NOT_SUPPORTED}"
        )

    def _raw(self, streams: Tensor) -> Tensor:
        hidden = streams.to(dtype_of(self.model.head))
        for module in self.tail:
            hidden = module(hidden)
        return hidden.float()

    def _finish(self, raw: Tensor) -> Tensor:
        scaled = raw * self._scale
        return scaled if self._cap is None else torch.tanh(scaled / self._cap) * self._cap

    @torch.no_grad()
    def log_probabilities(self, streams: Tensor) -> Tensor:
        """(n, d) → (n, V) log-probabilities, float32, on the CPU."""
        streams = streams.to(self.stream[-1].device)
        return self._finish(self._raw(streams)).log_softmax(-1).cpu()

    @property
    def has_bounds(self) -> bool:
        """Whether ``increase_bounds`` holds: one plain product in float32 ends the way, without a soft cap."""
        head = self.model.head
        return bool(self.tail) and self.tail[-1] is head and self._cap is None and _is_float32(head)

    @torch.no_grad()
    def increase_bounds(self, residual: Tensor, vectors: Tensor, token: int) -> Tensor:
        """(n,) upper bounds of log p(t | h + w) − log p(t | h), h (d,) and each w in (n, d), without reading V tokens.

        With z the logits: log-sum-exp is convex, so it lies over its tangent at z(h), and the increase is at most
        (e_t − softmax(z(h))) · (z(h + w) − z(h)), which is a product of width d.
        """
        head = self.tail[-1]
        streams = torch.cat([residual.unsqueeze(0), residual + vectors]).to(self.stream[-1].device)
        for module in self.tail[:-1]:
            streams = module(streams)
        chances = self._finish(head(streams[:1])).softmax(-1)[0]
        weight = self.model.unembedding.float()
        direction = self._scale * (weight[token] - chances @ weight)
        return ((streams[1:] - streams[:1]).to(direction.device) @ direction).cpu()

    def residual_before(self, layer: int) -> Tensor:
        """(d,) float32: the stream after the layer, without what its feed-forward neurons and biases wrote."""
        stream = self.stream[layer][0, -1].detach().float().cpu()
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
        leaf, stream = self._leaves[site], self.stream[site[0]]
        generator = torch.Generator().manual_seed(0)
        probes = [torch.randn(stream.shape[-1], generator=generator) + 3.0 for _ in range(2)]
        pulled = []
        for probe in probes:
            weights = torch.zeros_like(stream)
            weights[0, -1] = probe.to(stream.device, stream.dtype)
            gradient = torch.autograd.grad(stream, leaf, weights, retain_graph=True)[0]
            pulled.append(gradient.reshape(-1, gradient.shape[-1])[-1].float().cpu())
        diagonal = pulled[0] / probes[0]
        tolerance = 1e-3 if leaf.dtype == torch.float32 else 5e-2
        if (pulled[1] - diagonal * probes[1]).norm() > tolerance * pulled[1].norm():
            raise MethodError(
                f"What layer {site[0]} of {self.model.name} writes is mixed on its way into the stream{NOT_SUPPORTED}"
            )
        return diagonal


def _is_float32(module: nn.Module) -> bool:
    return all(parameter.dtype == torch.float32 for parameter in module.parameters())
