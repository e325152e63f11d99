"""A finished index on disk: one file for each layer, small enough to keep and mapped into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from neuronwise.errors import IndexingError
from neuronwise.files import make_folder, read_form, whole_file, write_bytes, write_json
from neuronwise.index.bins import SIZES, packed
from neuronwise.index.items import ITEMS
from neuronwise.index.tally import PLACES, Tally
from neuronwise.index.work import LeftOut, Progress, Recipe

SCHEMA, ABOUT, LAYERS, OFFSETS = "neuronwise.index/1", "index.json", "layers", "items.safetensors"


class About(TypedDict):
    """``index.json``: what an index is of.

    ``positions`` counts those that were read, by place. ``thresholds``, by layer: a neuron fires where the size of its
    activation is at or above that. ``left_out``: photos and texts that could not be read, and why.
    """

    schema: str
    recipe: Recipe
    items: int
    examples: int
    positions: dict[str, int]
    thresholds: dict[str, float]
    left_out: list[LeftOut]


def write_index(
    folder: Path, recipe: Recipe, tallies: Mapping[int, Tally], lines: Sequence[bytes], progress: Progress
) -> None:
    """Write a finished index into a folder; ``index.json`` comes last and makes it one."""
    positions = {place: count for place, count in progress["positions"].items() if count}
    places = list(map(PLACES.index, positions))
    examples = min(recipe["k"], len(lines))
    thresholds: dict[str, float] = {}
    make_folder(folder / LAYERS, IndexingError)
    for layer, tally in tallies.items():
        step = _step(tally)
        thresholds[str(layer)] = float(SIZES[step])
        with whole_file(folder / LAYERS / f"L{layer}.safetensors", IndexingError) as new:
            save_file(_compact(tally, places, examples, step), new)
    starts = torch.tensor([0, *accumulate(map(len, lines))][:-1], dtype=torch.int64)
    with whole_file(folder / OFFSETS, IndexingError) as new:
        save_file({"offsets": starts}, new)
    write_bytes(folder / ITEMS, b"".join(lines), IndexingError)
    about = About(
        schema=SCHEMA, recipe=recipe, items=len(lines), examples=examples, positions=positions, thresholds=thresholds,
        left_out=progress["left_out"],
    )  # fmt: skip
    write_json(folder / ABOUT, about, IndexingError)


def read_about(folder: Path) -> About:
    """What a folder's index is of; raises ``IndexingError`` for a folder without a finished one."""
    about = read_form(folder / ABOUT, About, "neuron index", IndexingError)
    if about["schema"] != SCHEMA:
        raise IndexingError(f"'{folder}' has the form {about['schema']!r}; this version reads {SCHEMA!r}.")
    if not about["positions"] or not about["positions"].keys() <= set(PLACES):
        raise IndexingError(f"'{folder / ABOUT}' is damaged: its positions are not at {', '.join(PLACES)}.")
    return about


def require_items(progress: Progress) -> None:
    """Raise ``IndexingError`` where nothing could be read."""
    if not progress["items"]:
        out = progress["left_out"]
        raise IndexingError(
            f"No photo or text could be read, of {len(out)}; the first, {out[0]['name']}: {out[0]['why']}"
        )


def _step(tally: Tally) -> int:
    """Which of ``SIZES`` is the first at or above the root mean square of the layer's neurons, their median, where they
    predict, or else anywhere."""
    counts = tally.spread_counts().double()
    squares = tally.squares.sum(0).cpu()
    if not counts[0].any():
        counts, squares = counts.sum(0, keepdim=True), squares.sum(0, keepdim=True)
    counted = counts[0] > 0
    median = (squares[0][counted] / counts[0][counted]).sqrt().median() if counted.any() else torch.zeros(())
    return min(int(np.searchsorted(SIZES, float(median))), len(SIZES) - 1)


def _compact(tally: Tally, places: list[int], examples: int, step: int) -> dict[str, Tensor]:
    """``moments`` (n, places, 3) float32: mean, standard deviation, frequency; ``histogram`` (n, places, 64) uint8;
    ``value``, ``item``, ``position``, ``gate`` (n, places, 2, examples); ``counts`` (writers, places)."""
    mean, spread = tally.moments()
    counts = tally.spread_counts()
    moments = torch.stack([mean, spread, tally.above(step) / counts.clamp_min(1)], dim=-1)
    lists = {name: getattr(tally, name).cpu()[:, places, :, :examples].permute(2, 1, 0, 3) for name in
             ("item", "position", "gate")}  # fmt: skip
    value = torch.stack([tally.value[0], -tally.value[1]]).cpu()[:, places, :, :examples].permute(2, 1, 0, 3)
    found = {
        "moments": moments[places].transpose(0, 1).float(),
        "histogram": torch.from_numpy(packed(tally.histogram.cpu()[places].transpose(0, 1).numpy())),
        "value": torch.where(lists["item"] < 0, 0.0, value), **lists, "counts": tally.counts[:, places],
    }  # fmt: skip
    return {name: tensor.contiguous() for name, tensor in found.items()}
