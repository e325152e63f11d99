"""Putting the shards of an index together: the same index as one pass makes, to the byte."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from neuronwise.errors import IndexingError, told
from neuronwise.files import from_json, require_free, write_folder
from neuronwise.index.compact import ABOUT, require_items, write_index
from neuronwise.index.tally import PLACES
from neuronwise.index.work import Progress, Work, require_same


def merge(shards: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> None:
    """Write the index of all shards into the new folder ``out``; see ``Index.merge``."""
    if not shards:
        raise IndexingError("Name the folders of the shards.")
    folders, target = [Path(shard) for shard in shards], require_free(out, IndexingError)
    for folder in folders:
        if (folder / ABOUT).exists():
            raise IndexingError(f"'{folder}' holds a finished index, which cannot be merged: it keeps rounded counts.")
    works = [Work.read(folder, tallies=False) for folder in folders]
    _require_all(works)
    numbers, lines = _joined(works)
    whole = _summed([work.progress for work in works])
    require_items(whole)
    merged: Work | None = None
    for folder, numbered in zip(folders, numbers, strict=True):
        work = Work.read(folder)
        for tally in work.tallies.values():
            tally.require_finite()
            tally.item = torch.where(tally.item < 0, -1, numbered[tally.item.clamp_min(0).long()])
        if merged is None:
            merged = work
            continue
        for layer, tally in merged.tallies.items():
            tally.merge(work.tallies[layer])
    assert merged is not None
    recipe = merged.recipe
    recipe["shard"] = [1, 1]
    write_folder(target, lambda new: write_index(new, recipe, merged.tallies, lines, whole), IndexingError)


def _require_all(works: Sequence[Work]) -> None:
    first, parts = works[0], works[0].recipe["shard"][1]
    seen: dict[int, Path] = {}
    for work in works:
        require_same(work.recipe, first.recipe, work.folder, shards=True)
        part, of = work.recipe["shard"]
        if of != parts:
            raise IndexingError(f"'{first.folder}' is one of {parts} shards, '{work.folder}' one of {of}.")
        if part in seen:
            raise IndexingError(f"Shard {part}/{parts} is given twice: '{seen[part]}' and '{work.folder}'.")
        if not work.progress["finished"]:
            raise IndexingError(
                f"Shard {part}/{parts} in '{work.folder}' is not finished; build it again to resume it."
            )
        seen[part] = work.folder
    missing = [f"{part}/{parts}" for part in range(1, parts + 1) if part not in seen]
    if missing:
        raise IndexingError(f"Missing: {'shard' if len(missing) == 1 else 'shards'} {', '.join(missing)}.")


def _summed(parts: Sequence[Progress]) -> Progress:
    """What all shards together have done; what was left out in the order of the data."""
    whole = Progress(done=0, items=0, positions=dict.fromkeys(PLACES, 0), size=0, finished=True, left_out=[])
    for part in parts:
        whole["done"] += part["done"]
        whole["items"] += part["items"]
        for place, count in part["positions"].items():
            whole["positions"][place] += count
    whole["left_out"] = sorted((row for part in parts for row in part["left_out"]), key=lambda row: row["source"])
    return whole


def _joined(works: Sequence[Work]) -> tuple[list[torch.Tensor], list[bytes]]:
    """For each shard the numbers of its items among all, and the lines of all, in the order of what was read."""
    shards, places = list[list[bytes]](), list[tuple[int, int, int]]()
    for shard, work in enumerate(works):
        with told(IndexingError, f"The shard in '{work.folder}' is damaged"):
            shards.append(work.lines())
            places += [(int(from_json(line)["source"]), shard, item) for item, line in enumerate(shards[-1])]
    places.sort()
    numbers = [torch.zeros(max(len(own), 1), dtype=torch.int32) for own in shards]
    for number, (_, shard, item) in enumerate(places):
        numbers[shard][item] = number
    return numbers, [shards[shard][item] for _, shard, item in places]
