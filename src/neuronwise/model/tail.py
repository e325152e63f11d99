"""From the residual stream behind a layer to logits: the model's own final norm, projections, head, scale and cap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neuronwise.errors import MethodError
from neuronwise.model.direct import logit_scale
from neuronwise.model.hooks import Args, Hooks, Kwargs, first_output
from neuronwise.model.prompt import Inputs
from neuronwise.model.weights import dtype_of

if TYPE_CHECKING:
    from neuronwise.model.model import Model

CELLS = 256  # streams read at a time where there are many: each gives a number for every token


class Tail:
    """What follows the last layer, found in one pass and then given any stream: a logit lens.

    ``streams[l]`` is what layer l returned in that pass at ``rows``, (rows, d).

    >>> with Hooks() as hooks:
    ...     tail = Tail(model, hooks, rows=[-1])
    ...     tail.fit(model.forward(inputs, rows=[-1]))
    >>> tail.log_probabilities(tail.streams[3])

    ``refusal`` ends the sentence of the ``MethodError`` for an architecture whose stream cannot be read so.
    """

    def __init__(self, model: Model, hooks: Hooks, rows: Sequence[int], refusal: str = "") -> None:
        self.model, self.rows, self.refusal = model, list(rows), refusal
        self.streams: list[Tensor] = []
        self.modules: list[nn.Module] = []
        self._scale, self._cap = 1.0, None
        self._closed = torch.zeros((), dtype=torch.bool)

        def left(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
            self.streams.append(self._at_rows(first_output(output)))

        def behind(module: nn.Module, args: Args, kwargs: Kwargs, output: object) -> None:
            if len(self.streams) == model.num_layers:
                self.modules.append(module)

        inside = {part for block in model.blocks for part in block.module.modules()}
        for block in model.blocks:
            hooks.after(block.module, left)
        for module in model.module.modules():
            if module not in inside and not any(True for _ in module.children()):
                hooks.after(module, behind)

    def _at_rows(self, stream: Tensor) -> Tensor:
        d = self.model.hidden_size
        if stream.dim() > 3 or stream.shape[-1] != d:
            raise MethodError(
                f"The residual stream of {self.model.name} is more than one vector of width {d} for each "
                f"position{self.refusal}"
            )
        return stream.reshape(-1, d)[self.rows]

    def fit(self, logits: Tensor) -> None:
        """Scale, soft cap and closed tokens are fitted to the model's own ``logits`` at the last of ``rows``,
        (1, …, V).

        Raises ``MethodError`` where these do not make them of the last layer's stream.
        """
        raw = self._raw(self.streams[-1][-1:].detach())[0]
        logits = logits[0, -1].detach().to(raw.device)
        self._closed = logits <= torch.finfo(logits.dtype).min  # such as an image's own tokens in a text
        logits = logits.float()
        open_ = ~self._closed
        self._scale = logit_scale(logits[open_], raw[open_])
        cap = getattr(self.model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
        close = 1e-3 if self.streams[-1].dtype == torch.float32 else 5e-2
        for candidate in (None, cap):
            self._cap = candidate
            if (self._finish(raw) - logits)[open_].norm() <= close * logits[open_].norm():
                return
        raise MethodError(
            f"The way from the residual stream of {self.model.name} to its logits is more than norms and one "
            f"product{self.refusal}"
        )

    def _raw(self, streams: Tensor) -> Tensor:
        hidden = streams.to(dtype_of(self.model.head))
        for module in self.modules:
            hidden = module(hidden)
        return hidden.float()

    def _finish(self, raw: Tensor) -> Tensor:
        logits = raw * self._scale
        if self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits.masked_fill(self._closed.to(logits.device), torch.finfo(logits.dtype).min)

    @torch.no_grad()
    def log_probabilities(self, streams: Tensor) -> Tensor:
        """(n, d) → (n, V) log-probabilities, float32, where the head is."""
        return self._finish(self._raw(streams.to(self.streams[-1].device))).log_softmax(-1)

    @property
    def has_bounds(self) -> bool:
        """Whether ``increase_bounds`` holds: one plain product in float32 ends the way, without a soft cap."""
        head = self.model.head
        plain = all(parameter.dtype == torch.float32 for parameter in head.parameters())
        return bool(self.modules) and self.modules[-1] is head and self._cap is None and plain

    @torch.no_grad()
    def increase_bounds(self, residual: Tensor, vectors: Tensor, token: int) -> Tensor:
        """(n,) upper bounds of log p(t | h + w) − log p(t | h), h (d,) and each w in (n, d), without reading V tokens.

        With z the logits: log-sum-exp is convex, so it lies over its tangent at z(h), and the increase is at most
        (e_t − softmax(z(h))) · (z(h + w) − z(h)), which is a product of width d.
        """
        head = self.modules[-1]
        streams = torch.cat([residual.unsqueeze(0), residual + vectors]).to(self.streams[-1].device)
        for module in self.modules[:-1]:
            streams = module(streams)
        chances = self._finish(head(streams[:1])).softmax(-1)[0]
        weight = self.model.unembedding.float()
        direction = self._scale * (weight[token] - chances @ weight)
        return ((streams[1:] - streams[:1]).to(direction.device) @ direction).cpu()


def read_streams(model: Model, inputs: Inputs, rows: Sequence[int]) -> Tail:
    """The streams of one pass over ``inputs`` at ``rows``, and the way from them to logits.

    Raises ``MethodError`` for an architecture whose stream is not one vector a position, or reaches the logits by more
    than norms and products.
    """
    with torch.no_grad():
        with Hooks() as hooks:
            tail = Tail(model, hooks, rows, ", so it cannot be read layer by layer.")
            logits = model.forward(inputs, rows=[rows[-1]])
        tail.fit(logits)
    return tail
