"""Whether a map over a photo lies on the object, and what a word loses without the map's hottest part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from neuronwise.errors import ImageError, MethodError
from neuronwise.images.masks import Mask
from neuronwise.model.grid import ImageGrid
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run, Target
from neuronwise.read.evidence.occlusion import Occluded
from neuronwise.read.photo_map import PhotoMap, Values

GRAY = (128, 128, 128)


@dataclass(frozen=True)
class MapFit:
    """``pointing``: whether the hottest pixel is on the object; ``iou``: of the object with the hottest part of the
    photo that is as large as the object; ``object_share`` and ``chance``: what pixels chosen blindly would reach."""

    pointing: bool
    iou: float
    object_share: float

    @property
    def chance(self) -> float:
        """The IoU of the object with as many pixels scattered blindly."""
        return self.object_share / (2 - self.object_share)


def map_fit(over: PhotoMap, mask: Mask) -> MapFit:
    """How well a map fits an object's mask (H, W); only the part of the photo that the model saw counts.

    Raises ``ImageError`` for a mask of another size, or of an object outside of that part.
    """
    values = over.image()
    if mask.shape != values.shape:
        raise ImageError(f"The mask is {mask.shape[1]} × {mask.shape[0]}, the photo {values.shape[1]} × "
                         f"{values.shape[0]}.")  # fmt: skip
    seen = ~np.isnan(values)
    heat, there = values[seen], mask[seen]
    size = int(there.sum())
    if not size:
        raise ImageError("The object is outside of the part of the photo that the model sees.")
    order = np.argsort(-heat, kind="stable")
    shared = int(there[order[:size]].sum())
    return MapFit(bool(there[order[0]]), shared / (2 * size - shared), size / len(there))


def center_map(over: PhotoMap) -> PhotoMap:
    """A control: the same grid, hottest in the photo's center."""
    rows, columns = over.grid.shape
    down, across = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
    far = np.hypot(down / rows - 0.5, across / columns - 0.5)
    return PhotoMap(-far, over.box, over.photo)


def random_map(over: PhotoMap, seed: int) -> PhotoMap:
    """A control: the same grid, its cells in a random order."""
    order = np.random.default_rng(seed).permutation(over.grid.size)
    return PhotoMap(order.reshape(over.grid.shape).astype(float), over.box, over.photo)


class PhotoDeletion:
    """log p of one word of a run as cells of its photo are taken away.

    In two ways, since no map may be judged by its own: ``by_fill`` puts the mean image token in the place of the
    cells' tokens, ``by_gray`` paints their pixels gray and lets the model look again.
    """

    def __init__(self, run: Run, target: Target, tokens: PhotoTokens) -> None:
        if run.image is None:
            raise MethodError("This run has no photo of which parts could be taken away.")
        self.run, self.target, self.tokens, self.photo = run, target, tokens, run.image
        self._occluded = Occluded(run, [target], tokens)
        self.before = float(self._occluded.before)

    def by_fill(self, cells: Sequence[Sequence[int]]) -> list[float] | None:
        """log p (nats) without the tokens of each set of cells; None where a cell has no token of its own."""
        return None if self.tokens.grid.mixing is not None else self._occluded.without(cells)[0].tolist()

    @torch.no_grad()
    def by_gray(self, cells: Sequence[Sequence[int]]) -> list[float]:
        """log p (nats) with the pixels of each set of cells painted gray, the same output forced."""
        return [self._log_p(painted(self.photo, self.tokens.grid, part)) for part in cells]

    def _log_p(self, photo: Image.Image) -> float:
        model = self.run.model
        prompted, _ = self.run.asked(photo)
        inputs = Run.of(model, prompted, self.run.output_ids, photo).forced_inputs()
        logits = model.forward(inputs, rows=[self.run.row(self.target.position)])[0, 0]
        return float(logits.float().log_softmax(-1)[self.target.token_id])


def painted(photo: Image.Image, grid: ImageGrid, cells: Sequence[int]) -> Image.Image:
    """The photo with some cells of the grid, numbered in reading order, painted gray."""
    changed = photo.copy()
    draw = ImageDraw.Draw(changed)
    width, height = grid.cell
    left, top = grid.box[:2]
    for cell in cells:
        row, column = divmod(cell, grid.width)
        x, y = left + column * width, top + row * height
        draw.rectangle((round(x), round(y), round(x + width) - 1, round(y + height) - 1), fill=GRAY)
    return changed


def hottest(grid: Values, shares: Sequence[float]) -> list[list[int]]:
    """The hottest cells of a map, as many as each share of all, one at least."""
    order = np.argsort(-grid.reshape(-1), kind="stable").tolist()
    return [order[: max(1, round(share * len(order)))] for share in shares]
