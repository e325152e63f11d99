"""The photos and texts of an index: what was read, token by token, so that an example can be shown."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from neuronwise.errors import IndexingError, PromptError, told
from neuronwise.files import from_json, ordinary
from neuronwise.index.tally import PLACES
from neuronwise.locate.baseline import predicting_rows
from neuronwise.model.grid import image_grid
from neuronwise.model.run import Run

Record: TypeAlias = dict[str, Any]
"""An item as a JSON object, a line of ``items.jsonl``."""
ITEMS = "items.jsonl"


@dataclass(frozen=True)
class Item:
    """A photo with its caption, or a text: number ``number`` of an index.

    ``name`` is the photo's file relative to the data's folder, or the text's number. ``text`` is the caption or the
    text, ``captions`` are the references that came with a photo. ``tokens`` has one text for each row of the
    sequence, "" for one of the image. ``size`` is the photo's in pixels; ``grid`` (rows, columns) and ``box`` say where
    its tokens lie, ``cells`` the row of the sequence that each cell of the grid is.
    """

    number: int
    kind: str
    name: str
    text: str
    captions: tuple[str, ...] = ()
    tokens: tuple[str, ...] = field(default=(), repr=False)
    size: tuple[int, int] | None = field(default=None, repr=False)
    grid: tuple[int, int] | None = field(default=None, repr=False)
    box: tuple[float, float, float, float] | None = field(default=None, repr=False)
    cells: tuple[int, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, number: int, record: Mapping[str, Any]) -> Item:
        """Read a record."""
        rows = [one for run in record["tokens"] for one in ([run] if isinstance(run, str) else [""] * run)]
        grid = record.get("grid")
        cells = grid["cells"] if grid else []
        if grid and isinstance(cells, int):
            cells = range(cells, cells + grid["rows"] * grid["columns"])
        return cls(
            number, record["kind"], record["name"], record["text"], tuple(record.get("captions", ())), tuple(rows),
            tuple(record["size"]) if "size" in record else None,
            (grid["rows"], grid["columns"]) if grid else None, _box(grid["box"]) if grid else None, tuple(cells),
        )  # fmt: skip

    def cell(self, position: int) -> tuple[int, int] | None:
        """Row and column in the photo's grid of a position of the sequence; None for one that is no part of it."""
        if self.grid is None or position not in self.cells:
            return None
        return divmod(self.cells.index(position), self.grid[1])

    def region(self, position: int) -> tuple[float, float, float, float] | None:
        """(left, top, right, bottom) in photo pixels of the cell at a position, None where it is no part of a grid."""
        cell = self.cell(position)
        if cell is None or self.grid is None or self.box is None:
            return None
        left, top, right, bottom = self.box
        across, down = (right - left) / self.grid[1], (bottom - top) / self.grid[0]
        return left + cell[1] * across, top + cell[0] * down, left + (cell[1] + 1) * across, top + (cell[0] + 1) * down


def _box(sides: Iterable[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, sides)
    return left, top, right, bottom


def record_of(run: Run, kind: str, name: str, captions: tuple[str, ...] = ()) -> Record:
    """An item's record: runs of image tokens are written as their number."""
    image, tokens = set(run.image_rows), list[str | int]()
    for row, token in enumerate(run.tokens):
        if row not in image:
            tokens.append(token)
        elif tokens and isinstance(tokens[-1], int):
            tokens[-1] += 1
        else:
            tokens.append(1)
    text = run.text if kind == "photo" else run.prompt
    record: Record = {"kind": kind, "name": name, "text": text, "tokens": tokens}
    if captions:
        record["captions"] = list(captions)
    if run.image is not None:
        record["size"] = list(run.image.size)
        record |= _grid_of(run)
    return record


def _grid_of(run: Run) -> Record:
    try:
        grid = image_grid(run)
    except PromptError:
        return {}
    if grid.said or grid.mixing is not None or grid.mixing_of is not None:
        return {}
    cells = grid.positions.tolist()
    plain = cells == list(range(cells[0], cells[0] + len(cells)))
    where = {"rows": grid.height, "columns": grid.width, "box": list(map(float, grid.box))}
    return {"grid": {**where, "cells": cells[0] if plain else cells}}


def rows_of(run: Run) -> dict[str, list[int]]:
    """The rows of a run by ``PLACES``, each in one of them.

    "predicting": those that predicted the generated or forced tokens, as a baseline has it; of a text that stands
    alone, all but the first. "image": the image's tokens. "text": the rest, but for the last token, which nothing
    follows.
    """
    length = run.length
    if run.output_ids or run.images:
        predicting = [length + row for row in predicting_rows(run)]
    else:
        predicting = list(range(1, length)) or [0]
    image = [row for row in run.image_rows if row not in predicting]
    others = set(range(length - bool(run.output_ids))) - set(predicting) - set(image)
    return dict(zip(PLACES, (predicting, image, sorted(others)), strict=True))


class Items:
    """The items of a finished index, each read when it is asked for; ``offsets`` (n,) are where their lines begin."""

    def __init__(self, path: Path, offsets: NDArray[np.int64]) -> None:
        self._path, self._offsets = path, offsets
        with ordinary(path).open("rb") as file:
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> Item:
        if not 0 <= number < len(self):
            raise IndexError(number)
        with self._telling():
            return Item.of(number, self._record(number))

    def __iter__(self) -> Iterator[Item]:
        return (self[number] for number in range(len(self)))

    def texts(self) -> Iterator[tuple[str, ...]]:
        """Of each item its caption or text, and the reference captions: much sooner than whole items."""
        with self._telling():
            for number in range(len(self)):
                record = self._record(number)
                yield record["text"], *record.get("captions", ())

    def kinds(self) -> Iterator[str]:
        """Of each item whether it is a "photo" or a "text"."""
        with self._telling():
            for number in range(len(self)):
                yield self._record(number)["kind"]

    def _record(self, number: int) -> Record:
        start = int(self._offsets[number])
        end = int(self._offsets[number + 1]) if number + 1 < len(self) else len(self._lines)
        return from_json(self._lines[start:end], finite=True)

    def _telling(self) -> AbstractContextManager[None]:
        return told(IndexingError, f"'{self._path}' is damaged")
