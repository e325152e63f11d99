"""Numbers over a photo: a grid of them, brought to the photo's size and laid over it."""

from __future__ import annotations

import base64
import html
import io
import os
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from neuronwise.errors import MethodError
from neuronwise.images.open import save_image
from neuronwise.model.grid import Box
from neuronwise.neurons import snippet

SIDE = 2048  # pixels of a drawn photo: screens show no more
THUMBNAIL = 360
Values = npt.NDArray[np.floating]


@dataclass(frozen=True, repr=False)
class PhotoMap:
    """``grid`` (h, w) over a photo.

    ``box`` is what it covers, (left, top, right, bottom) in photo pixels; ``note`` says how the grid came about where
    it is not plain; ``floor`` is the value up to which nothing is drawn, its lowest without one.
    """

    grid: Values
    box: Box
    photo: Image.Image = field(repr=False)
    note: str | None = field(default=None, kw_only=True)
    floor: float | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        rows, columns = self.grid.shape
        low, high = float(self.grid.min()), float(self.grid.max())
        return f"{type(self).__name__}({self._about()}{rows} × {columns}, from {low:.3g} to {high:.3g})"

    def _about(self) -> str:
        return ""

    def _repr_html_(self) -> str:
        """For notebooks: the photo with the map laid over it, small."""
        picture, stream = self.overlay(), io.BytesIO()
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        picture.save(stream, "JPEG", quality=85)
        data = base64.b64encode(stream.getvalue()).decode()
        alt = html.escape(repr(self))
        return f'{snippet.line(repr(self), self.note or "")}<img alt="{alt}" src="data:image/jpeg;base64,{data}">'

    def image(self, size: tuple[int, int] | None = None) -> Values:
        """(H, W): the grid brought bilinearly to the photo's size, or to another; NaN where the model saw nothing."""
        width, height = size or self.photo.size
        across, down = width / self.photo.size[0], height / self.photo.size[1]
        left, top, right, bottom = (edge * by for edge, by in zip(self.box, (across, down, across, down), strict=True))
        columns = (np.arange(width) + 0.5 - left) / (right - left) * self.grid.shape[1] - 0.5
        rows = (np.arange(height) + 0.5 - top) / (bottom - top) * self.grid.shape[0] - 0.5
        values = _bilinear(self.grid.astype(np.float32), rows, columns)
        outside_rows = (np.arange(height) + 0.5 < top) | (np.arange(height) + 0.5 > bottom)
        outside_columns = (np.arange(width) + 0.5 < left) | (np.arange(width) + 0.5 > right)
        values[outside_rows] = np.nan
        values[:, outside_columns] = np.nan
        return values

    def mask(self, percentile: float = 95.0) -> npt.NDArray[np.bool_]:
        """(H, W) bool: where the heat is above its ``percentile``, 95 as in [MMN] and [SCH]."""
        if not 0 <= percentile < 100:
            raise MethodError(f"percentile is {percentile}; give a number from 0 to below 100.")
        heat = self.image()
        with np.errstate(invalid="ignore"):
            return heat > np.nanpercentile(heat, percentile)

    def overlay(self, strength: float = 0.55) -> Image.Image:
        """The photo with the heat laid over it, transparent where it is cold; at most ``SIDE`` pixels wide and high."""
        by = min(1.0, SIDE / max(self.photo.size))
        width, height = (max(1, round(side * by)) for side in self.photo.size)
        small = self.photo if by == 1 else self.photo.resize((width, height), reducing_gap=2.0)
        heat = self.image(small.size)
        low, high = np.nanmin(heat) if self.floor is None else self.floor, np.nanmax(heat)
        level = np.nan_to_num((heat - low) / (high - low) if high > low else np.zeros_like(heat)).clip(0)
        color = np.stack([np.clip(1.6 * level, 0, 1), np.clip(1.8 * level - 0.7, 0, 1), 0.35 * (1 - level)], axis=-1)
        alpha = (strength * level)[..., None]
        photo = np.asarray(small, dtype=np.float32) / 255
        return Image.fromarray((255 * ((1 - alpha) * photo + alpha * color)).round().astype(np.uint8))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the overlay as an image file (.png, .jpg ...), whole or not at all."""
        save_image(self.overlay(), path)


def _bilinear(grid: Values, rows: Values, columns: Values) -> Values:
    rows = np.clip(rows, 0, grid.shape[0] - 1)
    columns = np.clip(columns, 0, grid.shape[1] - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, right = np.minimum(top + 1, grid.shape[0] - 1), np.minimum(left + 1, grid.shape[1] - 1)
    down, across = (rows - top)[:, None], (columns - left)[None, :]
    upper = grid[np.ix_(top, left)] * (1 - across) + grid[np.ix_(top, right)] * across
    lower = grid[np.ix_(bottom, left)] * (1 - across) + grid[np.ix_(bottom, right)] * across
    return upper * (1 - down) + lower * down
