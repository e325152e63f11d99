"""Where the image's tokens are: their positions as a grid, and the part of the photo that the grid covers.

One small file for each way of placing: ``views`` (one grid, tiles, merged patches), ``packed`` (LLaVA-NeXT's rows),
``queries`` (through a Q-Former or resampler), ``cross`` (through cross-attention). Where in the photo a view is, is
asked of the model's own processor (``traced``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuronwise.errors import PromptError, told
from neuronwise.model.grid.cross import crossing, through_cross_attention
from neuronwise.model.grid.layout import Box, ImageGrid, within
from neuronwise.model.grid.packed import packer, unpacked
from neuronwise.model.grid.queries import resampler, through_queries
from neuronwise.model.grid.traced import trace
from neuronwise.model.grid.views import in_views, merged

if TYPE_CHECKING:
    from neuronwise.model.run import Run

__all__ = ["Box", "ImageGrid", "image_grid"]


def image_grid(run: Run, *, whole: bool = False) -> ImageGrid:
    """The grid of a run's image; raises ``PromptError`` where the model's image tokens have no place in the photo.

    Of a photo that is cut into tiles the tiles are taken, joined in their place; with ``whole=True`` the overview of
    the whole photo, where the model has one.
    """
    size = run.photo.size
    with told(PromptError, f"The image tokens of {run.model.name} have no place in a photo of {size[0]} × {size[1]}"):
        return within(_placed(run, whole), *size)


def _placed(run: Run, whole: bool) -> ImageGrid:
    positions = run.image_positions
    grid = merged(run, positions)
    if grid is not None:
        return grid
    seen = trace(run)
    if packer(run) is not None:
        grid = unpacked(run, positions, seen, whole)
        if grid is not None:
            return grid
    part = resampler(run.model.module)
    if part is not None:
        return through_queries(run, part, positions, seen, whole)
    layers = crossing(run) if len(positions) == 1 else {}
    if layers:
        return through_cross_attention(run, layers, int(positions[0]), seen)
    grid = in_views(run, positions, seen, whole)
    if grid is None or grid.height * grid.width < 2:
        raise PromptError(
            f"The {len(positions)} image tokens of this model form no grid that is known, so there is no map."
        )
    return grid
