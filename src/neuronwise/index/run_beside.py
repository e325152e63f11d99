"""What neurons do in one run, beside what an index says that they usually do."""

from __future__ import annotations

import numpy as np
import torch

from neuronwise.errors import IndexingError, NeuronwiseError
from neuronwise.index.items import rows_of
from neuronwise.index.reading import read_runs
from neuronwise.index.search import Floats, Scored
from neuronwise.index.stored import Stored
from neuronwise.model import Run


def firing_in(stored: Stored, run: Run, place: str | None) -> tuple[Scored, dict[str, object]]:
    """How high each neuron goes in a run, as a share of how high it is on its examples; see ``Index.firing_in``."""
    if place is None:
        place = "image" if run.images and "image" in stored.places else "predicting"
    at, place = stored.place(place)
    rows = torch.tensor(rows_of(run)[place])
    if not len(rows):
        raise IndexingError(f"This run has no {place} positions.")
    ((_, read),) = read_runs(run.model, [run], 1)
    if isinstance(read, NeuronwiseError):
        raise read
    seen = read[1]

    def scores(layer: int) -> tuple[Floats, Floats]:
        highest = np.concatenate([_highest(seen.fired(one, rows, 0).values) for one in run.model.blocks[layer].writers])
        mean = stored.array(layer, "moments")[:, at, 0]
        usual = stored.array(layer, "value")[:, at, 0].mean(1) - mean
        share = np.divide(highest - mean, usual, out=np.zeros_like(mean), where=(usual > 0) & np.isfinite(highest))
        return share, np.zeros_like(share)

    return scores, {"place": place, "items": len(stored.items)}


def _highest(values: torch.Tensor) -> Floats:
    """(width,) of (rows, width); -infinity where nothing was routed to an expert."""
    return values.amax(0).cpu().numpy() if len(values) else np.full(values.shape[1], -np.inf, np.float32)
