"""Gathering an index: one pass over photos and texts, which resumes after an interruption, whole or as a shard."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from neuronwise.errors import IndexingError, NeuronwiseError, NonFiniteError
from neuronwise.files import held, make_folder, new_folders
from neuronwise.index.compact import ABOUT, read_about, require_items, write_index
from neuronwise.index.items import rows_of
from neuronwise.index.source import Reading, Source, read_item
from neuronwise.index.tally import PLACES, Tally
from neuronwise.index.watch import Watched
from neuronwise.index.work import Work, recipe_of, require_same
from neuronwise.model import Model
from neuronwise.model.hooks import hooked
from neuronwise.model.modes import computes
from neuronwise.model.writers import Writer

Tell = Callable[[int, int], None]  # photos and texts done, and how many there are
EXAMPLES, SAVE_EVERY = 20, 60.0


@computes
def gather(
    model: Model,
    source: Source,
    out: str | os.PathLike[str],
    reading: Reading | None = None,
    *,
    examples: int = EXAMPLES,
    shard: str | None = None,
    save_every: float = SAVE_EVERY,
    progress: Tell | None = None,
) -> None:
    """Index every feed-forward neuron of the decoder over ``source`` into the folder ``out``; see ``Index.build``."""
    if hooked(model.module):
        raise IndexingError("An index is of the model as it is; gather it outside of any intervention.")
    if examples < 1:
        raise IndexingError(f"examples is {examples}; keep 1 or more.")
    reading = reading or Reading()
    recipe = recipe_of(model, source.about, asdict(reading), examples, parse_shard(shard))
    folder = Path(out)
    with new_folders(folder), held(make_folder(folder, IndexingError), IndexingError):
        if (folder / ABOUT).exists():
            require_same(read_about(folder)["recipe"], recipe, folder)
            return
        work = Work.begin(folder, recipe)
        try:
            _gather(model, work, source, reading, save_every, progress)
        except NeuronwiseError:
            if not work.progress["size"]:  # nothing is saved
                work.forget()
            raise
        if shard is None:
            write_index(folder, recipe, work.tallies, work.lines(), work.progress)
            work.forget(items=False)


def parse_shard(shard: str | None) -> tuple[int, int]:
    """ "1/4" is the first of four; None the only one."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", "1/1" if shard is None else shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise IndexingError(f"shard is {shard!r}; write 1/4 for the first of four.")
    return int(match[1]), int(match[2])


def _gather(model: Model, work: Work, source: Source, reading: Reading, save_every: float, tell: Tell | None) -> None:
    part, parts = work.recipe["shard"]
    before, total, saved = work.progress["done"], len(range(part - 1, len(source), parts)), time.monotonic()
    if work.progress["finished"]:
        return
    for number, (name, given) in enumerate(source):
        mine, place = divmod(number, parts)
        if place != part - 1 or mine < before:
            continue
        try:
            for run, seen, record in read_item(model, name, given, reading):
                rows = rows_of(run)
                count_item(model, work.tallies, rows, seen, work.progress["items"])
                work.keep({"source": number, **record}, rows)
        except NonFiniteError:
            raise
        except NeuronwiseError as problem:
            why = str(problem) if isinstance(given, str) else str(problem).replace(str(given.path), name)
            work.progress["left_out"].append({"source": number, "name": name, "why": why})
        work.progress["done"] = mine + 1
        if time.monotonic() - saved >= save_every and mine + 1 < total:
            work.save()
            saved = time.monotonic()
        if tell is not None:
            tell(mine + 1, total)
    if parts == 1:
        require_items(work.progress)
    work.progress["finished"] = True
    work.save()


def count_item(
    model: Model, tallies: Mapping[int, Tally], rows: Mapping[str, Sequence[int]], seen: Watched, item: int
) -> None:
    """Count what all neurons did at the rows of one item, by place."""
    places = {PLACES.index(place): torch.tensor(own) for place, own in rows.items() if own}
    for layer, own in _by_layer(model).items():
        tally = tallies[layer]
        for index, writer in enumerate(own):
            if writer.expert is None:
                for place, there in places.items():
                    tally.add(index, place, item, *seen.dense(writer, there))
                continue
            fired, values = seen.experts(writer)
            if fired:
                for place, there in places.items():
                    here = torch.isin(torch.tensor(fired), there)
                    tally.add(index, place, item, values[here], torch.tensor(fired)[here], None)


def _by_layer(model: Model) -> dict[int, list[Writer]]:
    found: dict[int, list[Writer]] = {}
    for writer in model.writers:
        found.setdefault(writer.layer, []).append(writer)
    return found
