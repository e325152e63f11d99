"""Where the numbers that a model looks at come from in the photo: its own processor is asked.

The processor is given, in the photo's place, pictures of the same size: black, white, and one ramp in each direction.
What it makes of them says for every number it hands to the model from which column and row of the photo it came,
whatever was resized, cropped, cut, padded or normalized. Where black and white come out alike there is no photo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from neuronwise.errors import NeuronwiseError
from neuronwise.model.grid.layout import Box
from neuronwise.model.prompt import Inputs

if TYPE_CHECKING:
    from neuronwise.model.run import Run


REMEMBERED = 4  # sizes of photos


@dataclass(frozen=True)
class Traced:
    """``x``, ``y``: the place in the photo of each number of the model's pixels, in photo pixels, NaN for padding."""

    x: Tensor
    y: Tensor
    size: tuple[int, int]

    def tiles(self) -> list[Box | None]:
        """The box of each view, for pixels of (..., channels, H, W); ``None`` for one that holds no photo."""
        return [
            self._box(x, y)
            for x, y in zip(self.x.reshape(-1, *self.x.shape[-3:]), self.y.reshape(-1, *self.y.shape[-3:]), strict=True)
        ]

    def _box(self, x: Tensor, y: Tensor) -> Box | None:
        across = _line(x.nanmean((0, 1)), self.size[0])
        down = _line(y.nanmean((0, 2)), self.size[1])
        return None if across is None or down is None else (across[0], down[0], across[1], down[1])


def pixels_of(inputs: Inputs) -> Tensor | None:
    """What the vision tower gets."""
    return inputs.get("pixel_values")


def trace(run: Run) -> Traced | None:
    """Trace a run's pixels; ``None`` without a processor, or where it does not give the same again.

    Photos of one size come out alike, so the last few sizes are remembered.
    """
    pixels, processor = pixels_of(run.prompted.inputs), run.model.processor
    if processor is None or run.image is None or pixels is None:
        return None
    known: dict[object, Traced | None] = run.model.memo("traced", dict)
    settings = str(getattr(processor, "image_processor", processor))
    key = (run.image.size, pixels.shape, settings)
    if key not in known:
        if len(known) >= REMEMBERED:
            known.pop(next(iter(known)))
        known[key] = _traced(run, run.image.size, pixels.shape)
    return known[key]


def _traced(run: Run, photo: tuple[int, int], shape: torch.Size) -> Traced | None:
    width, height = photo
    black, white = (np.full((1, 1), level, dtype=np.uint8) for level in (0, 255))
    seen = []
    for gray in (black, white, _ramp(width)[None, :], _ramp(height)[:, None]):
        picture = Image.fromarray(np.ascontiguousarray(np.broadcast_to(gray[..., None], (height, width, 3))))
        processed = _processed(run, picture)
        if processed is None or processed.shape != shape:
            return None
        seen.append(processed.float())
    dark, bright, across, down = seen
    reach = bright - dark
    reach = torch.where(reach.abs() > 0.5 * reach.abs().max(), reach, torch.nan)
    return Traced((across - dark) / reach * width, (down - dark) / reach * height, photo)


def _ramp(length: int) -> NDArray[np.uint8]:
    """Gray that says how far along a pixel's center is."""
    return np.rint(255 * (np.arange(length) + 0.5) / length).astype(np.uint8)


def _processed(run: Run, picture: Image.Image) -> Tensor | None:
    """The pixels that the run's own processor makes of another picture, asked with the run's own prompt."""
    processor = run.model.processor
    if callable(processor):
        try:
            return pixels_of(run.asked(picture)[0].inputs)
        except NeuronwiseError:
            return None
    image_processor = getattr(processor, "image_processor", None)
    return None if image_processor is None else pixels_of(dict(image_processor(picture, return_tensors="pt")))


def _line(places: Tensor, size: int) -> tuple[float, float] | None:
    """The two edges of a straight line of places, one for each processed pixel; whole photos end at its edges."""
    known = torch.nonzero(~places.isnan()).flatten()
    if len(known) < 2:
        return None
    cut = len(known) // 8  # resampling bends the ramp at the photo's edges
    known = known[cut : len(known) - cut]
    slope, start = np.polyfit(known.numpy() + 0.5, places[known].numpy(), 1)
    edges = [float(start), float(start + slope * len(places))]
    tolerance = max(1.0, 0.75 * abs(slope))
    whole = [edge if abs(edge - near) > tolerance else near for edge, near in zip(edges, (0.0, size), strict=True)]
    return tuple(float(round(2 * edge) / 2) for edge in whole)  # type: ignore[return-value]
