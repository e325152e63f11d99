"""Where in the photo neurons fire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from neuronwise.errors import MethodError
from neuronwise.locate.firing import chosen, firing, units_of
from neuronwise.locate.method import require_own
from neuronwise.model import Model
from neuronwise.model.activations import Activations
from neuronwise.model.grid import ImageGrid, image_grid
from neuronwise.model.modes import computes
from neuronwise.model.run import Run
from neuronwise.neurons import Neuron, Neurons, as_neurons
from neuronwise.read.photo_map import PhotoMap, Values


@dataclass(frozen=True, repr=False)
class Heatmap(PhotoMap):
    """Where neurons fire: ``grid`` (h, w) is their mean activation over the image's grid, ``each`` (n, h, w) has one
    for each neuron."""

    each: Values = field(kw_only=True)

    def _about(self) -> str:
        count = len(self.each)
        return f"{count} neuron{'s' if count > 1 else ''}: "


@computes
def heatmap(model: Model, run: Run, neurons: Neurons, *, whole: bool = False) -> Heatmap:
    """Mean activation of the neurons over the image's tokens ([MMN] §4.2), by one pass that ends at the last of them.

    Of a photo that the model cuts into tiles the tiles' heat is joined; ``whole=True`` takes the overview's instead,
    where the model has one. A routed expert's neuron counts with its router weight, 0 at tokens that are routed
    elsewhere. Raises ``PromptError`` for a run without an image, or where the model's image tokens have no place in
    the photo.
    """
    return heatmaps(model, run, [neurons], whole=whole)[0]


@computes
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
        results.append(Heatmap(stacked.mean(0), grid.box, run.image, note=grid.note, each=stacked))
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
