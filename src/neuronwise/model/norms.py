"""Norms seen as linear maps: their output with the scale of the moment held fixed.

Which kind a norm is (RMS or centered, gain w or 1 + w, with or without bias) is read off its own input and output,
not off its class.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuronwise.model.blocks import Block
from neuronwise.model.weights import dtype_of, materialized


@dataclass(frozen=True)
class FrozenNorm:
    """y = scale ⊙ gain ⊙ (x − mean(x) if centered) + bias, with ``scale`` (…, 1) taken from one real call."""

    scale: Tensor
    gain: Tensor | None
    bias: Tensor | None
    centered: bool

    def __call__(self, x: Tensor) -> Tensor:
        y = self.linear(x.float())
        return (y if self.bias is None else y + self.bias).to(x.dtype)

    def linear(self, x: Tensor) -> Tensor:
        """The linear part alone, for differences of x."""
        if self.centered:
            x = x - x.mean(dim=-1, keepdim=True)
        return self.scale * (x if self.gain is None else self.gain * x)

    def pulled(self, directions: Tensor) -> Tensor:
        """The linear part transposed: of directions (…, d) behind the norm, what they are before it."""
        y = self.scale * (directions if self.gain is None else self.gain * directions)
        return y - y.mean(dim=-1, keepdim=True) if self.centered else y


def looks_like_norm(name: str, module: nn.Module) -> bool:
    """A module that may be a norm: called so, or a LayerNorm by class, and without parts of its own."""
    kind = type(module).__name__.lower()
    named = "norm" in kind or "norm" in name.rpartition(".")[2].lower()
    return named and not any(True for _ in module.children())


def last_norm(decoder: nn.Module, blocks: Sequence[Block], hidden_size: int) -> nn.Module | None:
    """The norm before the output head: the last of the residual stream's width outside of all layers."""
    inside = {id(m) for block in blocks for m in block.module.modules()}
    found = None
    for name, module in decoder.named_modules():
        weight = getattr(module, "weight", None)
        sized = isinstance(weight, Tensor) and weight.shape == (hidden_size,)
        if sized and id(module) not in inside and looks_like_norm(name, module):
            found = module
    return found


def freeze(module: nn.Module, x: Tensor, y: Tensor) -> FrozenNorm | None:
    """Find the form under which ``module`` gave ``y`` for ``x``; None when it is not such a norm."""
    with materialized(module):
        weight = getattr(module, "weight", None)
        bias = getattr(module, "bias", None)
    gains = [None] if not isinstance(weight, Tensor) else [weight.detach().float(), 1 + weight.detach().float(), None]
    biases = [bias.detach().float()] if isinstance(bias, Tensor) else [None]
    x, y = x.detach().float(), y.detach().float()
    tolerance = 1e-4 if dtype_of(module) == torch.float32 else 3e-2
    for centered, gain, shift in itertools.product((False, True), gains, biases):
        unit = FrozenNorm(torch.ones((), device=x.device), gain, None, centered).linear(x)
        target = y if shift is None else y - shift
        scale = (unit * target).sum(-1, keepdim=True) / (unit * unit).sum(-1, keepdim=True).clamp_min(1e-30)
        if (scale * unit - target).norm() <= tolerance * target.norm() + 1e-12:
            return FrozenNorm(scale, gain, shift, centered)
    return None
