"""Where the image's tokens lie: their positions as a grid, and the part of the photo that the grid covers."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neuronwise.errors import PromptError
from neuronwise.model.hooks import Hooks

if TYPE_CHECKING:
    from neuronwise.model.run import Run

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageGrid:
    """How the image's tokens spread over the photo.

    ``positions`` (n,): rows of the prompt whose activations are read. ``mixing`` (h·w, n) maps them to grid cells:
    the identity for patch tokens, the Q-Former's attention to patches for query tokens. ``box`` is what the grid
    covers, (left, top, right, bottom) in photo pixels; it reaches beyond a photo that the model pads. ``note`` says
    what a reader must know.
    """

    positions: Tensor
    height: int
    width: int
    box: Box
    mixing: Tensor | None = None
    note: str | None = None

    def spread(self, values: Tensor) -> Tensor:
        """(..., n) values at the image's positions → (..., h, w)."""
        if self.mixing is not None:
            values = values @ self.mixing.T
        return values.reshape(*values.shape[:-1], self.height, self.width)


def image_grid(run: Run) -> ImageGrid:
    """The grid of a run's image; raises ``PromptError`` where the model's image tokens have no place in the photo."""
    if run.image is None:
        raise PromptError("This run has no image, so there is no heatmap.")
    positions = run.image_positions
    qformer = _qformer(run.model.module)
    if qformer is not None:
        return _through_qformer(run, qformer, positions)
    inputs = run.prompted.inputs
    whole: Box = (0.0, 0.0, float(run.image.width), float(run.image.height))
    if "image_grid_thw" in inputs:
        _, rows, columns = (int(n) for n in inputs["image_grid_thw"].reshape(-1, 3)[0])
        merge = math.isqrt(rows * columns // len(positions))
        if merge and (rows // merge) * (columns // merge) == len(positions):
            return ImageGrid(positions, rows // merge, columns // merge, whole)
    if len(positions) == 1:
        raise PromptError(
            "This model reads the photo by cross-attention: its prompt has no image tokens to lay a heatmap over."
        )
    view = _one_view(run, positions)
    side = math.isqrt(len(view))
    if side > 1 and side * side == len(view) - 1:  # the encoder's class token comes first
        view = view[1:]
        side = math.isqrt(len(view))
    if side < 2 or side * side != len(view):
        raise PromptError(
            f"The {len(positions)} image tokens of this model form no grid that is known, so there is no heatmap."
        )
    note = None if len(view) >= len(positions) - 1 else "heat of the view of the whole photo; its tiles are left out"
    box = whole if note else _covered(getattr(run.model.processor, "image_processor", None), run.image.size)
    return ImageGrid(view, side, side, box, note=note)


def _one_view(run: Run, positions: Tensor) -> Tensor:
    """Of a photo cut into tiles, the tokens of the view of the whole photo."""
    processor, config = run.model.processor, run.model.config
    for name in ("image_seq_len", "image_seq_length", "num_image_tokens"):
        length = getattr(processor, name, None) or getattr(config, name, None)
        if isinstance(length, int) and 0 < length < len(positions) and len(positions) % length == 0:
            return positions[-length:]  # Idefics3, SmolVLM, InternVL: the whole comes last
    if hasattr(config, "image_grid_pinpoints") and hasattr(config, "vision_config"):
        vision = config.vision_config
        side = vision.image_size // vision.patch_size
        if side * side < len(positions):
            return positions[: side * side]  # LLaVA-NeXT, -OneVision: the whole comes first
    return positions


def _covered(image_processor: Any, size: tuple[int, int]) -> Box:
    """The part of the photo that survives resizing, cropping and padding, in photo pixels."""
    width, height = size
    target = getattr(image_processor, "size", None) or {}
    shortest = target.get("shortest_edge") if hasattr(target, "get") else getattr(target, "shortest_edge", None)
    if getattr(image_processor, "do_pad", False) and not shortest:
        side = float(max(width, height))
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
    if getattr(image_processor, "do_center_crop", False):
        crop = image_processor.crop_size
        scale = (shortest / min(width, height)) if shortest else None
        if scale is None and target.get("height"):
            scale_x, scale_y = target["width"] / width, target["height"] / height
        else:
            scale_x = scale_y = scale or 1.0
        crop_width, crop_height = crop["width"] / scale_x, crop["height"] / scale_y
        left, top = (width - crop_width) / 2, (height - crop_height) / 2
        return left, top, left + crop_width, top + crop_height
    return 0.0, 0.0, float(width), float(height)


def _qformer(module: nn.Module) -> nn.Module | None:
    for name, child in module.named_modules():
        if name.rpartition(".")[2] == "qformer":
            return child
    return None


def _through_qformer(run: Run, qformer: nn.Module, positions: Tensor) -> ImageGrid:
    """Query tokens have no place of their own: their mean cross-attention to patches says where they looked."""
    caught: list[Tensor] = []

    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if isinstance(output, tuple) and len(output) > 1 and isinstance(output[1], Tensor) and output[1].dim() == 4:
            caught.append(output[1])  # (batch, heads, queries, patches)

    with Hooks() as hooks, torch.no_grad(), _shown_attention(qformer):
        for name, module in qformer.named_modules():
            if "cross" in name.lower():
                hooks.after(module, keep)
        run.model.forward(run.prompted.inputs, rows=[-1])
    if not caught:
        raise PromptError("The Q-Former of this model does not show its attention to patches, so there is no heatmap.")
    attention = torch.stack([layer.float().mean(1)[0].cpu() for layer in caught]).mean(0)
    attention = attention[: len(positions), 1:]  # without the encoder's class token
    side = math.isqrt(attention.shape[1])
    if side * side != attention.shape[1] or attention.shape[0] != len(positions):
        raise PromptError("The Q-Former of this model attends to patches in no grid, so there is no heatmap.")
    assert run.image is not None
    box = _covered(getattr(run.model.processor, "image_processor", None), run.image.size)
    note = "through the Q-Former's cross-attention: where its query tokens looked, weighted by the activations"
    return ImageGrid(positions, side, side, box, attention.T.contiguous(), note)


@contextlib.contextmanager
def _shown_attention(module: nn.Module) -> Iterator[None]:
    """Attention computed plainly within the body, so that its weights can be seen."""
    configs: dict[int, Any] = {id(c): c for m in module.modules() if (c := getattr(m, "config", None)) is not None}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
