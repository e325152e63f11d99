"""LLaVA-NeXT and its kin: tiles unpadded and packed with a token at each row's end, by the model's own code."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neuronwise.model.grid.layout import Box, ImageGrid
from neuronwise.model.grid.traced import Traced, pixels_of

if TYPE_CHECKING:
    from neuronwise.model.run import Run

OVERVIEW, TILE, NEWLINE = 0.0, 1.0, 2.0


def packer(run: Run) -> Any:
    """The part of the model that packs its tiles' features, ``None`` for other families."""
    inner = getattr(run.model.module, "model", None)
    return inner if hasattr(inner, "pack_image_features") and "image_sizes" in run.prompted.inputs else None


def unpacked(run: Run, positions: Tensor, trace: Traced | None, whole: bool) -> ImageGrid | None:
    """Places instead of features go through the model's own packing: the output says where each token is."""
    pixels = pixels_of(run.prompted.inputs)
    assert run.image is not None
    assert pixels is not None
    photo: Box = (0.0, 0.0, float(run.image.width), float(run.image.height))
    vision = run.model.config.vision_config
    side = vision.image_size // vision.patch_size
    tiles = pixels.reshape(-1, *pixels.shape[-3:]).shape[0]
    boxes = [box or photo for box in trace.tiles()] if trace is not None else [photo] * tiles
    places = torch.stack([_places(box, side, OVERVIEW if i == 0 else TILE) for i, box in enumerate(boxes)])
    tokens = _through(packer(run), places, run)
    if tokens is None or len(tokens) != len(positions):
        return None
    tokens[:, 2] = tokens[:, 2].round()  # the model may have shrunk its tiles by interpolation
    overview = positions[tokens[:, 2] == OVERVIEW]
    fine = tokens[:, 2] == TILE
    if whole or not fine.any():
        note = "the overview of the whole photo; its tiles are left out" if fine.any() else None
        return ImageGrid(overview, side, side, boxes[0], note=note)
    after = tokens[len(overview) :, 2]
    columns = int(torch.nonzero(after == NEWLINE)[0]) if (after == NEWLINE).any() else 0
    rows = int(fine.sum()) // max(columns, 1)
    if rows * columns != int(fine.sum()):
        return None
    box = photo if trace is None else _covered(tokens[fine].reshape(rows, columns, 3), boxes[1], side, photo)
    note = "the photo's tiles, joined in their place and unpadded; the overview's tokens are left out"
    return ImageGrid(positions[fine], rows, columns, box, note=note)


def _places(box: Box, side: int, kind: float) -> Tensor:
    """(side·side, 3): x and y of each token's center in the photo, and what it is."""
    left, top, right, bottom = box
    steps = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    x, y = left + (right - left) * steps, top + (bottom - top) * steps
    return torch.stack(
        [x.expand(side, side), y[:, None].expand(side, side), torch.full((side, side), kind)], dim=-1
    ).reshape(-1, 3)


def _through(owner: Any, places: Tensor, run: Run) -> Tensor | None:
    offered = {
        "vision_feature_select_strategy": "default",
        "vision_aspect_ratio": getattr(run.model.config, "vision_aspect_ratio", None),
        "image_newline": torch.full((3,), NEWLINE, dtype=places.dtype),
    }
    known = inspect.signature(owner.pack_image_features).parameters
    kept = {name: value for name, value in offered.items() if name in known and value is not None}
    try:
        found, _ = owner.pack_image_features([places], run.prompted.inputs["image_sizes"], **kept)
    except (ValueError, RuntimeError, TypeError, IndexError):  # features that are not one for each patch
        return None
    return found[0] if isinstance(found, list | tuple) else found


def _covered(tokens: Tensor, tile: Box, side: int, photo: Box) -> Box:
    """From the tokens' centers to the edges of what they cover; those near the photo's are the photo's."""
    x, y = tokens[..., 0].mean(0), tokens[..., 1].mean(1)
    edges = []
    for centers, size in ((x, tile[2] - tile[0]), (y, tile[3] - tile[1])):
        half = float((centers[-1] - centers[0]) / (len(centers) - 1) if len(centers) > 1 else size / side) / 2
        edges.append((float(centers[0]) - half, float(centers[-1]) + half, 0.2 * half))
    (left, right, near_x), (top, bottom, near_y) = edges
    found = (left, top, right, bottom)
    close = (near_x, near_y, near_x, near_y)
    snapped = [p if abs(f - p) < near else f for f, p, near in zip(found, photo, close, strict=True)]
    return snapped[0], snapped[1], snapped[2], snapped[3]
