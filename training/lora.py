"""LoRA of the language model's matrices while it trains with the projector (Hu et al., 2022, arXiv 2106.09685)."""

from typing import Any

import torch
from torch import nn

MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Adapted(nn.Module):
    """A frozen linear layer and a product of two thin matrices beside it, kept in float32 and read in its precision."""

    def __init__(self, base: nn.Linear, rank: int):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return base(x) + up · down · x for x (…, in)."""
        low = nn.functional.linear(hidden, self.down.to(hidden.dtype))
        return self.base(hidden) + nn.functional.linear(low, self.up.to(hidden.dtype))


def adapt(model: Any, rank: int) -> dict[str, nn.Parameter]:
    """Put adapters of a rank on every matrix of the layers, and return their parameters by name."""
    parameters: dict[str, nn.Parameter] = {}
    for number, layer in enumerate(model.model.layers):
        for part in ("self_attn", "mlp"):
            holder = getattr(layer, part)
            for name in MATRICES:
                if hasattr(holder, name):
                    adapted = Adapted(getattr(holder, name), rank)
                    setattr(holder, name, adapted)
                    for factor in ("down", "up"):
                        parameters[f"layers.{number}.{part}.{name}.{factor}"] = getattr(adapted, factor)
    return parameters
