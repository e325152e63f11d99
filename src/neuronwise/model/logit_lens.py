"""Reading the residual stream as a distribution over tokens, layer by layer, at the last position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuronwise.errors import MethodError
from neuronwise.model.hooks import Hooks
from neuronwise.model.stream import Key, _direct_hooks, _scale, frozen_parameters, unit_path

if TYPE_CHECKING:
    from neuronwise.model.model import Model


class LogitLens:
    """The stream of one pass at its last position, and the way from any such stream to log-probabilities.

    ``residual_before(l)`` is (d,): the stream without what layer l's feed-forward block wrote.
    ``into_stream(l, writer, vectors)`` maps vectors (n, d) as written to what arrives in the stream (through
    post-norms and multipliers). ``log_probabilities(h)`` is (n, V) for streams (n, d).
    """

    def __init__(self, model: Model, inputs: dict[str, Any]) -> None:
        self.model = model
        self.leaves: dict[Key, Tensor] = {}
        self.outputs: dict[Key, Tensor] = {}
        self.stream: list[Tensor] = []
        self.tail: list[nn.Module] = []
        last_layer = model.blocks[-1].module
        around = {id(m) for b in model.blocks for m in b.module.modules()}
        reached = [False]
        with frozen_parameters(model.module), Hooks() as hooks, torch.enable_grad():
            _direct_hooks(model, hooks, self.leaves, self.outputs, [])
            for block in model.blocks:
                hooks.after(block.module, self._keep_stream)
            hooks.after(last_layer, lambda *_: reached.__setitem__(0, True))
            for module in model.module.modules():
                if id(module) not in around and not any(True for _ in module.children()):
                    hooks.after(module, lambda m, *_: self.tail.append(m) if reached[0] else None)
            logits = model.forward(inputs, rows=[-1])[0, -1].detach().float()
        self._maps: dict[Key, Tensor] = {}
        self._scale, self._cap = 1.0, None
        if any(s.dim() != 3 or s.shape[-1] != model.hidden_size for s in self.stream):
            raise MethodError(
                f"The residual stream of {model.name} is more than one vector of width {model.hidden_size} for each "
                "position, so log_prob_increase is not to be had; use method='contribution'."
            )
        self._fit_tail(logits)

    def _keep_stream(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.stream.append(output if isinstance(output, Tensor) else output[0])

    def _fit_tail(self, logits: Tensor) -> None:
        """Scale and soft cap are fitted to the model's own logits; what fits neither is refused."""
        raw = self._raw(self.stream[-1][0, -1].detach().unsqueeze(0))[0]
        logits = logits.to(raw.device)
        self._scale = _scale(logits, raw)
        cap = getattr(self.model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
        close = 1e-3 if self.stream[-1].dtype == torch.float32 else 5e-2
        for candidate in (None, cap):
            self._cap = candidate
            if (self._finish(raw) - logits).norm() <= close * logits.norm():
                return
        raise MethodError(
            f"The way from the residual stream of {self.model.name} to its logits is more than norms and one "
            "product, so log_prob_increase is not to be had; use method='contribution'."
        )

    def _raw(self, streams: Tensor) -> Tensor:
        hidden = streams.to(next(self.model.head.parameters()).dtype)
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
        block = self.model.blocks[layer]
        stream = self.stream[layer][0, -1].detach().float().cpu()
        paths = [writer.path for writer in block.dense]
        paths += [unit_path(block, number) for number in range(len(block.routed))]
        for path in paths:
            output = self.outputs[layer, path]
            written = output.reshape(-1, output.shape[-1])[-1].float().cpu()
            stream = stream - self.into_stream(layer, path, written.unsqueeze(0))[0]
        return stream

    def into_stream(self, layer: int, path: str, vectors: Tensor) -> Tensor:
        key = (layer, path)
        if key not in self._maps:
            self._maps[key] = self._diagonal(key)
        return vectors * self._maps[key]

    def _diagonal(self, key: Key) -> Tensor:
        """(d,): how each number written at ``key`` arrives in the stream; refused unless one by one."""
        leaf, stream = self.leaves[key], self.stream[key[0]]
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
                f"What layer {key[0]} of {self.model.name} writes is mixed on its way into the stream, so "
                "log_prob_increase is not to be had; use method='contribution'."
            )
        return diagonal


def _is_float32(module: nn.Module) -> bool:
    return all(parameter.dtype == torch.float32 for parameter in module.parameters())
