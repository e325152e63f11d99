"""The projector while it trains: LLaVA's two layers, better conditioned, and its start in closed form."""

import torch
from torch import nn

SHIFT = 3.0
"""GELU is nearly the identity around this, so that a linear map can be the start of two layers."""


class Projector(nn.Module):
    """LLaVA's `linear_2(gelu(linear_1(x)))` of standardized features, with the shift taken off between the layers.

    Both are changes of coordinates that `exported` undoes exactly; without them AdamW's first steps along the mean
    feature and the shift would be far larger than all others.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        mean: torch.Tensor,
        scale: float | torch.Tensor,
        inputs: int = 1280,
        width: int = 576,
        shift: float = SHIFT,
    ):
        super().__init__()
        self.shift = shift
        self.linear_1, self.linear_2 = nn.Linear(inputs, width), nn.Linear(width, width)
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", torch.as_tensor(scale).clone())

    def forward(self, features: torch.Tensor, drop: float = 0.0, drop_cells: float = 0.0) -> torch.Tensor:
        """Map features (…, N) to word-embedding space (…, 576), dropping single features or cells at random.

        Features beyond those that it knows are left out.
        """
        x = (features[..., : len(self.mean)] - self.mean) / self.scale
        if drop:
            x = nn.functional.dropout(x, drop)
        if drop_cells:
            x = x * (torch.rand(x.shape[:-1], device=x.device) >= drop_cells)[..., None]
        return self.linear_2(nn.functional.gelu(self.linear_1(x) + self.shift) - self.shift)

    @torch.no_grad()
    def exported(self) -> dict[str, torch.Tensor]:
        """Return the equal weights of LLaVA's projector."""
        first, second = self.linear_1, self.linear_2
        return {
            "linear_1.weight": first.weight / self.scale,
            "linear_1.bias": first.bias + self.shift - first.weight @ (self.mean / self.scale),
            "linear_2.weight": second.weight.clone(),
            "linear_2.bias": second.bias - self.shift * second.weight.sum(1),
        }

    @torch.no_grad()
    def widened(self, mean: torch.Tensor, scale: torch.Tensor) -> "Projector":
        """Return the same projector with further features (N,) of this mean and scale, whose weights are zero."""
        old = self.scale.expand(len(self.mean))
        wide = Projector(
            torch.cat([self.mean, mean]), torch.cat([old, scale]), len(self.mean) + len(mean),
            self.linear_2.out_features, self.shift,
        )  # fmt: skip
        wide.load_state_dict({**self.state_dict(), "mean": wide.mean, "scale": wide.scale} | {
            "linear_1.weight": nn.functional.pad(self.linear_1.weight, (0, len(mean)))
        })  # fmt: skip
        return wide

    @torch.no_grad()
    def take(self, exported: dict[str, torch.Tensor]) -> None:
        """Take on weights that `exported` gave."""
        self.linear_1.weight.copy_(exported["linear_1.weight"] * self.scale)
        self.linear_1.bias.copy_(exported["linear_1.bias"] - self.shift + exported["linear_1.weight"] @ self.mean)
        self.linear_2.weight.copy_(exported["linear_2.weight"])
        self.linear_2.bias.copy_(exported["linear_2.bias"] + self.shift * exported["linear_2.weight"].sum(1))

    @torch.no_grad()
    def start(self, rows: torch.Tensor, words: torch.Tensor, sample: torch.Tensor, spread: float, ridge: float) -> None:
        """Start as the ridge regression from classifier rows (C, 1280) to word embeddings (C, 576).

        `sample` (N, 1280) are features of training photos, at which the output is scaled to the standard deviation
        `spread` of the embeddings.
        """
        x = rows - rows.mean(0)
        x = x / x.norm(dim=1, keepdim=True)
        center = words.mean(0)
        gram = x.T @ x + ridge * torch.eye(x.shape[1])
        linear = torch.linalg.solve(gram, x.T @ (words - center)).T
        out = ((sample - self.mean) / self.scale) @ linear.T
        linear = linear * (spread / out.std())
        # Each hidden unit carries one output dimension, at 0.7 standard deviations: GELU(3 ± 2) is the identity to 2 %.
        unit = 0.7 / (((sample - self.mean) / self.scale) @ linear.T).std(0)
        self.linear_1.weight.copy_(linear * unit[:, None])
        self.linear_1.bias.zero_()
        self.linear_2.weight.copy_(torch.diag(1 / unit))
        self.linear_2.bias.copy_(center)
