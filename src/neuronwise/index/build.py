"""Gathering an index: one pass over photos and texts, which resumes after an interruption, whole or as a shard."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch

from neuronwise.data.photos import Captioned
from neuronwise.errors import IndexingError, NeuronwiseError, NonFiniteError
from neuronwise.files import held, make_folder, new_folders
from neuronwise.index.compact import ABOUT, read_about, require_items, write_index
from neuronwise.index.items import record_of, rows_of
from neuronwise.index.reading import Read, Reading, read_photos, read_runs, windows
from neuronwise.index.source import Source
from neuronwise.index.tally import PLACES, Tally
from neuronwise.index.watch import Seen
from neuronwise.index.work import RECIPE, Work, recipe_of, require_same
from neuronwise.model import Model, Run
from neuronwise.model.hooks import hooked
from neuronwise.model.modes import computes

Tell = Callable[[int, int], None]  # photos and texts done, and how many there are
EXAMPLES, SAVE_EVERY = 20, 60.0
Counted = tuple[int, Mapping[str, Sequence[int]], Seen]  # an item's number, its rows by place, and what neurons did
Numbered = tuple[int, tuple[str, Captioned | str]]  # a photo or text with its name, by its number


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
            if (folder / RECIPE).exists():  # it was killed as soon as the index was whole
                Work.read(folder, tallies=False).forget(items=False)
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
    """Read what is not read yet of a shard, a batch at a time: every ``parts``-th batch is its own."""
    part, parts = work.recipe["shard"]
    if work.progress["finished"]:
        return
    mine = list(islice(_chunks(range(len(source)), reading.batch), part - 1, None, parts))
    total, done, saved = sum(map(len, mine)), 0, time.monotonic()
    for chunk in islice(_chunks(enumerate(source), reading.batch), part - 1, None, parts):
        done += len(chunk)
        if done <= work.progress["done"]:
            continue
        _read(model, work, chunk, reading)
        work.progress["done"] = done
        if time.monotonic() - saved >= save_every and done < total:
            work.save()
            saved = time.monotonic()
        if tell is not None:
            tell(done, total)
    if parts == 1:
        require_items(work.progress)
    work.progress["finished"] = True
    work.save()


def _read(model: Model, work: Work, chunk: Sequence[Numbered], reading: Reading) -> None:
    """Count the photos of a chunk, then the windows of its texts, in their order."""
    photos = [(number, name, given) for number, (name, given) in chunk if isinstance(given, Captioned)]
    found = dict(read_photos(model, [photo for _, _, photo in photos], reading))
    with _Counting(model, work) as counting:
        for index, (number, name, photo) in enumerate(photos):
            counting.add(found.pop(index), number, name, photo)
    runs: list[tuple[int, str, Run]] = []
    for number, (name, given) in chunk:
        if isinstance(given, str):
            try:
                runs += [(number, name, run) for run in windows(model, given, reading.length)]
            except NeuronwiseError as error:
                _leave_out(work, number, name, error)
    for some in _chunks(runs, reading.batch):
        read = dict(read_runs(model, [run for _, _, run in some], reading.batch))
        with _Counting(model, work) as counting:
            for index, (number, name, _) in enumerate(some):
                counting.add(read.pop(index), number, name)


class _Counting:
    """Items that are counted together when the body ends."""

    def __init__(self, model: Model, work: Work) -> None:
        self._model, self._work = model, work
        self._items: list[Counted] = []

    def add(self, read: Read | NeuronwiseError, number: int, name: str, photo: Captioned | None = None) -> None:
        """Add what was read of source number ``number``, or leave it out."""
        if isinstance(read, NeuronwiseError):
            _leave_out(self._work, number, name, read, "" if photo is None else str(photo.path))
            return
        run, seen = read
        rows = rows_of(run)
        self._items.append((self._work.progress["items"], rows, seen))
        captions = () if photo is None else photo.captions
        record = record_of(run, "text" if photo is None else "photo", name, captions)
        self._work.keep({"source": number, **record}, rows)

    def __enter__(self) -> _Counting:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            count_items(self._model, self._work.tallies, self._items)


def _leave_out(work: Work, number: int, name: str, error: NeuronwiseError, path: str = "") -> None:
    """Note what cannot be read, without the folders of this machine; what the model does to all is raised."""
    if isinstance(error, NonFiniteError):
        raise error
    why = str(error).replace(path, name) if path else str(error)
    work.progress["left_out"].append({"source": number, "name": name, "why": why})


T = TypeVar("T")


def _chunks(values: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    """``size`` values at a time."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def count_items(model: Model, tallies: Mapping[int, Tally], items: Sequence[Counted]) -> None:
    """Count what all neurons did at the rows of some items, by place."""
    for number, place in enumerate(PLACES):
        there = [(item, torch.tensor(rows[place]), seen) for item, rows, seen in items if rows[place]]
        for block in model.blocks:
            for index, writer in enumerate(block.writers):
                tallies[block.layer].add(index, number, [seen.fired(writer, rows, item) for item, rows, seen in there])
