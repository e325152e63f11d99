"""How an image's tokens spread over the photo, and views of it joined in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageGrid:
    """How the image's tokens spread over the photo.

    ``positions`` (n,): rows of the prompt whose activations are read (of prompt and generated text where ``said``).
    ``mixing`` (h·w, n) maps them to grid cells: ``None`` where each token is a cell, in reading order; else the
    attention by which the tokens looked at the cells. ``mixing_of`` holds, for a model that reads the photo by
    cross-attention, what each decoder layer has seen of it. ``box`` is what the grid covers, (left, top, right,
    bottom) in photo pixels; it reaches beyond a photo that the model pads. ``note`` says what a reader must know.
    """

    positions: Tensor
    height: int
    width: int
    box: Box
    mixing: Tensor | None = None
    note: str | None = None
    said: bool = False
    mixing_of: Mapping[int, Tensor] | None = None

    @property
    def cell(self) -> tuple[float, float]:
        """Width and height of one cell in photo pixels."""
        left, top, right, bottom = self.box
        return (right - left) / self.width, (bottom - top) / self.height

    def spread(self, values: Tensor, layer: int | None = None) -> Tensor:
        """(..., n) values at the image's positions → (..., h, w); ``layer`` is the neuron's, where it matters."""
        mixing = self.mixing
        if self.mixing_of is not None and layer is not None:
            mixing = self.mixing_of[layer]
        if mixing is not None:
            values = values @ mixing.T.to(values.dtype)
        return values.reshape(*values.shape[:-1], self.height, self.width)


def within(grid: ImageGrid, width: int, height: int) -> ImageGrid:
    """The grid without the rows and columns of cells that are wholly beside the photo, on what the model padded."""
    left, top, _, _ = grid.box
    across, down = grid.cell
    first, last = _on_photo(left, across, grid.width, width)
    upper, lower = _on_photo(top, down, grid.height, height)
    if (first, last, upper, lower) == (0, grid.width, 0, grid.height):
        return grid
    kept = torch.arange(grid.height * grid.width).reshape(grid.height, grid.width)[upper:lower, first:last].reshape(-1)
    tokens = {"positions": grid.positions[kept]} if grid.mixing is None else {"mixing": grid.mixing[kept]}
    return replace(
        grid, height=lower - upper, width=last - first, **tokens,
        box=(left + first * across, top + upper * down, left + last * across, top + lower * down),
        mixing_of={layer: m[kept] for layer, m in grid.mixing_of.items()} if grid.mixing_of is not None else None,
    )  # fmt: skip


def _on_photo(start: float, step: float, cells: int, size: int) -> tuple[int, int]:
    """The first cell that reaches onto the photo and the one behind the last, by more than a hair."""
    first = math.floor(-start / step + 0.01)
    last = math.ceil((size - start) / step - 0.01)
    return max(first, 0), min(last, cells)


@dataclass(frozen=True)
class View:
    """One look at the photo, whole or a tile: ``index`` (rows·columns,) names its cells' tokens in reading order."""

    index: Tensor
    rows: int
    columns: int
    box: Box

    @property
    def area(self) -> float:
        """Its area in photo pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


def joined(views: Sequence[View], whole: bool = False) -> tuple[View, str | None] | None:
    """The tiles laid side by side as one view, with a note; ``None`` where they form no rectangle.

    An overview beside the tiles is left out, or taken alone with ``whole=True``: a
    tile's tokens are denser than the overview's, and its box says which is which.
    """
    if len(views) == 1:
        return views[0], None
    overview = max(views, key=lambda view: view.area)
    tiles = [view for view in views if view is not overview]
    if overview.area < 1.5 * max(tile.area for tile in tiles):  # none covers more than a tile
        overview, tiles = None, list(views)
    if whole and overview is not None:
        return overview, "the overview of the whole photo; its tiles are left out"
    laid = _laid(tiles)
    if laid is None:
        return None if overview is None else (overview, "the overview; the tiles overlap and are left out")
    left_out = "" if overview is None else "; the overview's tokens are left out"
    down, across = laid.rows // tiles[0].rows, laid.columns // tiles[0].columns
    return laid, f"the photo's {down} × {across} tiles, joined in their place{left_out}"


def _laid(tiles: Sequence[View]) -> View | None:
    rows, columns = tiles[0].rows, tiles[0].columns
    width, height = (sum(t.box[2 + i] - t.box[i] for t in tiles) / len(tiles) for i in (0, 1))
    left, top = min(t.box[0] for t in tiles), min(t.box[1] for t in tiles)
    places: dict[tuple[int, int], View] = {}
    for tile in tiles:
        across, down = (tile.box[0] - left) / width, (tile.box[1] - top) / height
        place = round(down), round(across)
        if (tile.rows, tile.columns) != (rows, columns) or max(abs(down - place[0]), abs(across - place[1])) > 0.1:
            return None
        places[place] = tile
    tall, wide = (1 + max(place[i] for place in places) for i in (0, 1))
    if len(places) != tall * wide or len(tiles) != len(places):
        return None
    index = torch.stack([places[place].index for place in sorted(places)])
    index = index.reshape(tall, wide, rows, columns).transpose(1, 2).reshape(-1)
    box = (left, top, max(t.box[2] for t in tiles), max(t.box[3] for t in tiles))
    return View(index, tall * rows, wide * columns, box)


@dataclass(frozen=True)
class Shape:
    """Rows and columns of one view's tokens; ``first`` tokens stand before them, ``ends`` after each row."""

    rows: int
    columns: int
    first: int = 0
    ends: int = 0

    def index(self, tokens: Tensor) -> Tensor:
        """The grid's cells among a view's tokens."""
        return tokens[self.first :].reshape(self.rows, self.columns + self.ends)[:, : self.columns].reshape(-1)


def shape_of(tokens: int, height: int, width: int) -> Shape | None:
    """How so many tokens cover a view of ``height`` × ``width`` pixels, ``None`` where they cannot.

    A token's cell is square in all families that are known (one whose cells are not offers its ``token_grid``). A
    class token may come first, or a token end each row.
    """
    best: tuple[float, Shape] | None = None
    for first, ends in ((0, 0), (1, 0), (0, 1)):
        left = tokens - first
        for rows in range(1, left + 1):
            columns, rest = divmod(left, rows)
            if rest or columns <= ends:
                continue
            skew = abs(math.log(height / rows * (columns - ends) / width))
            if best is None or skew < best[0] - 1e-6:
                best = skew, Shape(rows, columns - ends, first, ends)
    return best[1] if best is not None and best[0] < 0.2 else None
