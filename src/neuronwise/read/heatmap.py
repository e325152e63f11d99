"""Where in the photo neurons fire."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from neuronwise.errors import MethodError, NeuronwiseError
from neuronwise.locate.firing import chosen, firing, units_of
from neuronwise.locate.method import require_own
from neuronwise.model.activations import Activations
from neuronwise.model.grid import Box, ImageGrid, image_grid
from neuronwise.model.run import Run
from neuronwise.neurons import Neuron, Neurons, as_neurons

if TYPE_CHECKING:
    from neuronwise.model import Model

Values = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Heatmap:
    """Activations over the image's grid.

    ``grid`` (h, w): mean over the neurons; ``each`` (n, h, w): neuron by neuron; ``box``: what the grid covers,
    (left, top, right, bottom) in photo pixels; ``note``: how the grid came about where it is not plain.
    """

    grid: Values
    each: Values
    box: Box
    photo: Image.Image
    note: str | None = None

    def image(self) -> Values:
        """(H, W): the grid brought bilinearly to the photo's size; NaN where the model saw nothing."""
        width, height = self.photo.size
        left, top, right, bottom = self.box
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
        """The photo with the heat laid over it, transparent where it is cold."""
        heat = self.image()
        low, high = np.nanmin(heat), np.nanmax(heat)
        level = np.nan_to_num((heat - low) / (high - low) if high > low else np.zeros_like(heat))
        color = np.stack([np.clip(1.6 * level, 0, 1), np.clip(1.8 * level - 0.7, 0, 1), 0.35 * (1 - level)], axis=-1)
        alpha = (strength * level)[..., None]
        photo = np.asarray(self.photo, dtype=np.float32) / 255
        return Image.fromarray((255 * ((1 - alpha) * photo + alpha * color)).round().astype(np.uint8))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the overlay as an image file (.png, .jpg ...)."""
        try:
            self.overlay().save(path)
        except (OSError, ValueError) as error:
            raise NeuronwiseError(f"The heatmap cannot be written to '{Path(path)}': {error}.") from error


def heatmap(model: Model, run: Run, neurons: Neurons, *, whole: bool = False) -> Heatmap:
    """Mean activation of the neurons over the image's tokens ([MMN] §4.2), by one pass that ends at the last of them.

    Of a photo that the model cuts into tiles the tiles' heat is joined; ``whole=True`` takes the overview's instead,
    where the model has one. A routed expert's neuron counts with its router weight, 0 at tokens that are routed
    elsewhere. Raises ``PromptError`` for a run without an image, or where the model's image tokens have no place in
    the photo.
    """
    return heatmaps(model, run, [neurons], whole=whole)[0]


def heatmaps(model: Model, run: Run, sets: Sequence[Neurons], *, whole: bool = False) -> list[Heatmap]:
    """Heatmaps of several sets of neurons, all read in one pass."""
    listed = [as_neurons(one) for one in sets]
    if not all(listed):
        raise MethodError("A heatmap needs one neuron or more.")
    require_own(model, [run])
    grid = image_grid(run, whole=whole)
    each = _on_the_grid(model, run, grid, list(dict.fromkeys(n for one in listed for n in one)))
    assert run.image is not None
    results = []
    for one in listed:
        stacked = np.stack([each[neuron] for neuron in one])
        results.append(Heatmap(stacked.mean(0), stacked, grid.box, run.image, grid.note))
    return results


def _on_the_grid(model: Model, run: Run, grid: ImageGrid, neurons: list[Neuron]) -> dict[Neuron, Values]:
    """(h, w) activations of each neuron: from the run's own pass where it kept them, else by one more."""
    units = units_of(model, neurons)
    seen = None if grid.said else run.seen
    if seen is not None and all(layer in seen.dense for layer in units):
        rows = torch.searchsorted(run.image_positions, grid.positions)
        kept = {layer: seen.dense[layer] for layer in units}
        dense = {layer: k[rows.to(k.device)][:, units[layer].to(k.device)].cpu() for layer, k in kept.items()}
        fired = chosen(Activations(dense), units, neurons)
    else:
        inputs = run.forced_inputs() if grid.said else run.prompted.inputs
        fired = firing(model, inputs, neurons, grid.positions.tolist())
    return {n: grid.spread(values, n.layer).numpy() for n, values in zip(neurons, fired.unbind(1), strict=True)}


def _bilinear(grid: Values, rows: Values, columns: Values) -> Values:
    rows = np.clip(rows, 0, grid.shape[0] - 1)
    columns = np.clip(columns, 0, grid.shape[1] - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    bottom, right = np.minimum(top + 1, grid.shape[0] - 1), np.minimum(left + 1, grid.shape[1] - 1)
    down, across = (rows - top)[:, None], (columns - left)[None, :]
    upper = grid[np.ix_(top, left)] * (1 - across) + grid[np.ix_(top, right)] * across
    lower = grid[np.ix_(bottom, left)] * (1 - across) + grid[np.ix_(bottom, right)] * across
    return upper * (1 - down) + lower * down
