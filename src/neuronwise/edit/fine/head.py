"""The output head without its logits: sums over the vocabulary, a slice of it at a time, with closed-form gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.model.model import Model
from neuronwise.model.passes import edit_input
from neuronwise.model.prompt import Inputs

SLICE = 1 << 16  # logits that are held at once
LEAST = 512  # tokens of a slice, however many rows there are
FAR = 16.0  # a soft cap shows itself when the last hidden state is so many times longer


@dataclass(frozen=True)
class PlainHead:
    """logits = scale·(W h + b), with ``weight`` W (V, d) and ``bias`` b (V,) or None."""

    weight: Tensor
    bias: Tensor | None
    scale: float

    def normalizer(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """(rows,): log Σ_v exp(logit_v) of ``hidden`` (rows, d); and its gradient E_p[scale·W] (rows, d).

        The gradient is None where none is asked for. Float32, or float64 for hidden states in float64.
        """
        if torch.is_grad_enabled() and hidden.requires_grad:
            total, mean = _Normalizer.apply(hidden, self)  # type: ignore[misc]
            return total, mean
        return _summed(hidden.detach(), self, False)

    def logits(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """(rows,): row i's logit of ``tokens[i]``."""
        tokens = tokens.to(self.weight.device)
        bias = None if self.bias is None else self.bias[tokens]
        found = nn.functional.linear(hidden.to(self.weight.device), self.weight[tokens], bias)
        return found.diagonal().to(_wide(hidden)) * self.scale


class _Normalizer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: PlainHead) -> tuple[Tensor, Tensor]:
        total, mean = _summed(hidden, head, True)
        assert mean is not None
        ctx.save_for_backward(mean)
        ctx.like = hidden.dtype, hidden.device
        ctx.mark_non_differentiable(mean)
        return total, mean

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (mean,) = ctx.saved_tensors
        dtype, device = ctx.like
        return (gradients[0].unsqueeze(1) * mean).to(device, dtype), None


def _summed(hidden: Tensor, head: PlainHead, with_mean: bool) -> tuple[Tensor, Tensor | None]:
    """The running form: what is summed so far is scaled down whenever a larger logit comes."""
    weight, wide = head.weight.detach(), _wide(hidden)
    hidden = hidden.detach().to(weight.device)
    size = max(LEAST, SLICE // max(1, len(hidden)))
    greatest = hidden.new_full((len(hidden), 1), -torch.inf, dtype=wide)
    total = torch.zeros_like(greatest)
    mean = hidden.new_zeros(hidden.shape, dtype=wide) if with_mean else None
    for start in range(0, len(weight), size):
        part = weight[start : start + size]
        bias = None if head.bias is None else head.bias.detach()[start : start + size]
        logits = nn.functional.linear(hidden, part, bias).to(wide).mul_(head.scale)
        now = torch.maximum(greatest, logits.amax(1, keepdim=True))
        shrink, greatest = (greatest - now).exp(), now
        logits.sub_(now).exp_()
        total = total * shrink + logits.sum(1, keepdim=True)
        if mean is not None:
            mean.mul_(shrink).addmm_(logits, part.to(wide))
    if mean is not None:
        mean.div_(total).mul_(head.scale)
    return (greatest + total.log()).squeeze(1), mean


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def plain_head(model: Model, inputs: Inputs) -> PlainHead | None:
    """The model's head when its logits are linear in the last hidden state, else None: then logits are needed.

    Whether they are is found out once for a model, in a pass over ``inputs``: soft caps, biases added later and
    whatever else an architecture does behind its head show up there. A head that is not a plain linear module of plain
    numbers, is offloaded or carries hooks is not a plain head either.
    """
    head: Any = model.head
    if type(head) is not nn.Linear or head.weight.device.type == "meta" or hasattr(head, "_hf_hook"):
        return None
    weight = head.weight
    if type(weight) not in (nn.Parameter, Tensor) or type(weight.data) is not Tensor or not weight.is_floating_point():
        return None  # quantized or spread over devices
    if any(head.__dict__.get(name) for name in ("_forward_hooks", "_forward_pre_hooks", "forward")):
        return None
    scale = model.memo("head scale", lambda: _scale(model, head, inputs))
    return None if scale is None else PlainHead(head.weight, head.bias, scale)


def _scale(model: Model, head: nn.Linear, inputs: Inputs) -> float | None:
    """c where the model's logits are c times what its head gives, at a hidden state and far out along it."""
    seen: list[Tensor] = []

    def near_and_far(hidden: Tensor) -> Tensor:
        seen.append(torch.cat([hidden[..., -1:, :], hidden[..., -1:, :] * FAR], dim=-2))
        return seen[-1]

    with edit_input(head, near_and_far), torch.no_grad():
        logits = model.forward(inputs)
        if len(seen) != 1 or seen[0].dim() != 3 or len(seen[0]) != len(logits):
            return None
        plain = nn.functional.linear(seen[0].to(head.weight.device), head.weight, head.bias)
    if plain.shape != logits.shape:
        return None
    a, b = logits.double().cpu().flatten(0, 1), plain.double().cpu().flatten(0, 1)
    scale = float((a[-1] @ b[-1]) / (b[-1] @ b[-1]).clamp_min(1e-30))
    allowed = 1e-5 if torch.finfo(logits.dtype).bits >= 32 else 2e-2
    near = (a - scale * b).norm(dim=1) <= allowed * a.norm(dim=1)
    return scale if bool(near.all()) and abs(scale) > 1e-12 else None
