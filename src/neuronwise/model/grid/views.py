"""Image tokens that are one grid, or the grids of several tiles, and those that merge a known number of patches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from neuronwise.errors import PromptError
from neuronwise.model.grid.layout import Box, ImageGrid, Shape, View, joined, shape_of
from neuronwise.model.grid.traced import Traced, pixels_of

if TYPE_CHECKING:
    from neuronwise.model.run import Run


def merged(run: Run, positions: Tensor) -> ImageGrid | None:
    """Qwen-VL and its kin: the processor says how many patches the photo was cut into, squares of which are merged."""
    inputs = run.prompted.inputs
    if "image_grid_thw" not in inputs:
        return None
    assert run.image is not None
    _, rows, columns = (int(n) for n in inputs["image_grid_thw"].reshape(-1, 3)[0])
    merge = math.isqrt(rows * columns // len(positions))
    if not merge or (rows // merge) * (columns // merge) != len(positions):
        return None
    return ImageGrid(
        positions, rows // merge, columns // merge, (0.0, 0.0, float(run.image.width), float(run.image.height))
    )


def in_views(run: Run, positions: Tensor, trace: Traced | None, whole: bool) -> ImageGrid | None:
    """One grid, or tiles with or without an overview: as many tokens for each view of the photo."""
    found = views_of(run, positions, trace)
    laid = joined(found, whole) if found else None
    if laid is None:
        return None
    view, note = laid
    return ImageGrid(view.index, view.rows, view.columns, view.box, note=note)


def views_of(
    run: Run, tokens: Tensor, trace: Traced | None, shape: Shape | None = None, patch: int | None = None
) -> list[View] | None:
    """The views that the processor made of the photo, with the tokens (or whatever is counted so) of each.

    ``shape`` is theirs where it is known, with the pixels along a ``patch``: those that fill none at a view's right and
    lower edge are not seen.
    """
    pixels = pixels_of(run.prompted.inputs)
    if pixels is None or pixels.dim() < 4:
        return None
    boxes = _boxes(run, pixels, trace)
    if not boxes or len(tokens) % len(boxes):
        return None
    each = len(tokens) // len(boxes)
    shape = shape or _offered(run) or shape_of(each, *pixels.shape[-2:])
    if shape is None or shape.first + shape.rows * (shape.columns + shape.ends) != each:
        return None
    if patch is not None:
        seen = shape.columns * patch / pixels.shape[-1], shape.rows * patch / pixels.shape[-2]
        boxes = [(x0, y0, x0 + seen[0] * (x1 - x0), y0 + seen[1] * (y1 - y0)) for x0, y0, x1, y1 in boxes]
    return [
        View(shape.index(tokens[i * each : (i + 1) * each]), shape.rows, shape.columns, box)
        for i, box in enumerate(boxes)
    ]


def patch_size(run: Run) -> int | None:
    """Pixels along a patch of the image encoder."""
    size = getattr(getattr(run.model.config, "vision_config", None), "patch_size", None)
    size = size[0] if isinstance(size, list | tuple) else size
    return size if isinstance(size, int) else None


def _boxes(run: Run, pixels: Tensor, trace: Traced | None) -> list[Box]:
    """Where each view is; views that hold no photo (the batch's padding) are left out."""
    if trace is not None:
        return [box for box in trace.tiles() if box is not None]
    assert run.image is not None
    views = pixels.reshape(-1, *pixels.shape[-3:]).shape[0]
    if views > 1:
        raise PromptError(
            f"Nothing shows where the {views} views of the photo are: only the model's own processor knows, so wrap "
            "both as Model(module, processor)."
        )
    return [(0.0, 0.0, float(run.image.width), float(run.image.height))]


def _offered(run: Run) -> Shape | None:
    """What the model's configuration says: ``image_token_grid``, rows and columns of the tokens of one view.

    For models whose tokens are not square cells, such as those that join four neighboring patches of a row; None
    there says that the tokens form no grid.
    """
    if not hasattr(run.model.config, "image_token_grid"):
        return None
    grid = run.model.config.image_token_grid
    if grid is None:
        raise PromptError("A token of this model reaches from one row of patches into the next, so there is no map.")
    return Shape(*grid)
