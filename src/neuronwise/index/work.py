"""The folder of an index that is being gathered: its recipe, its items so far, and one whole state of the tallies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import load_file, save_file

from neuronwise.errors import IndexingError, told
from neuronwise.files import line_of, ordinary, read_form, shareable, versions, write_folder, write_json
from neuronwise.index.items import ITEMS, Record
from neuronwise.index.tally import PLACES, Tally
from neuronwise.model import Model
from neuronwise.model.state import alike, likeness, weights_hash

RECIPE, STATE, SCHEMA = "recipe.json", "state.json", "neuronwise.index.work/1"
DIFFERENT = {"data": "other data", "reading": "other settings", "k": "another k"}


class About(TypedDict):
    """The model of an index, as it was."""

    name: str
    source: str
    num_layers: int
    weights: str | None
    likeness: list[float]


class Writers(TypedDict):
    """A writer of the model, as an index has it."""

    name: str
    layer: int
    expert: int | None
    first: int
    width: int


class Recipe(TypedDict):
    """What an index is gathered of, and how: the same for all shards but for ``shard``."""

    schema: str
    model: About
    data: dict[str, Any]
    reading: dict[str, Any]
    k: int
    shard: list[int]
    writers: list[Writers]
    versions: dict[str, str]


class LeftOut(TypedDict):
    """A photo or text that could not be read: its number among all, its name, and why."""

    source: int
    name: str
    why: str


class Progress(TypedDict):
    """How far the state of a shard reaches: sources done, of them left out, items with their positions by place, and
    bytes of ``items.jsonl``."""

    done: int
    items: int
    positions: dict[str, int]
    size: int
    finished: bool
    left_out: list[LeftOut]


def layers_of(writers: list[Writers]) -> dict[int, list[Writers]]:
    """The writers of each layer that has any."""
    found: dict[int, list[Writers]] = {}
    for writer in writers:
        found.setdefault(writer["layer"], []).append(writer)
    return found


class Work:
    """The tallies of one shard, and what is saved of them.

    ``save`` writes a whole state beside the last one, which is then removed, so that a process that is killed leaves
    one of them; lines of items behind the state's are cut off when the work goes on.
    """

    def __init__(self, folder: Path, recipe: Recipe, *, tallies: bool = True) -> None:
        self.folder, self.recipe = folder, recipe
        layers = layers_of(recipe["writers"]) if tallies else {}
        self.tallies = {layer: Tally([w["width"] for w in own], recipe["k"]) for layer, own in layers.items()}
        self.progress = Progress(
            done=0, items=0, positions=dict.fromkeys(PLACES, 0), size=0, finished=False, left_out=[]
        )
        self._pending: list[bytes] = []

    @classmethod
    def begin(cls, folder: Path, recipe: Recipe) -> Work:
        """Begin in an empty folder, or go on in one that was begun with the same recipe."""
        for left in folder.glob(".state-*.partial"):  # by a process that was killed
            shutil.rmtree(left)
        if (folder / RECIPE).exists():
            work = cls.read(folder)
            require_same(work.recipe, recipe, folder)
            return work
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise IndexingError(f"'{folder}' holds other files and no index that was begun; name a new folder.")
        write_json(folder / RECIPE, recipe, IndexingError)
        return cls(folder, recipe)

    @classmethod
    def read(cls, folder: Path, *, tallies: bool = True) -> Work:
        """What a folder holds of an index that is not finished, or all of it but the tallies.

        Raises ``IndexingError`` for anything else.
        """
        if not (folder / RECIPE).is_file():
            raise IndexingError(f"'{folder}' is no shard of an index: it has no {RECIPE}.")
        recipe = read_form(folder / RECIPE, Recipe, "recipe of an index", IndexingError)
        if recipe["schema"] != SCHEMA:
            raise IndexingError(f"'{folder}' has the form {recipe['schema']!r}; this version reads {SCHEMA!r}.")
        work = cls(folder, recipe, tallies=tallies)
        states = sorted(folder.glob("state-*"))
        if states:
            with told(IndexingError, f"The index begun in '{folder}' is damaged; remove that folder"):
                work.progress = read_form(states[-1] / STATE, Progress, "state of an index", IndexingError)
                if work.progress["positions"].keys() != set(PLACES):
                    raise ValueError(f"{STATE} counts positions at other places than {', '.join(PLACES)}")
                for layer, tally in work.tallies.items():
                    tally.restore(load_file(ordinary(states[-1] / f"L{layer}.safetensors")))
                if ordinary(work._items).stat().st_size < work.progress["size"]:
                    raise ValueError(f"{ITEMS} is too short")
        return work

    @property
    def _items(self) -> Path:
        return self.folder / ITEMS

    def keep(self, record: Record, rows: Mapping[str, Sequence[int]]) -> None:
        """Add an item and its rows by place; it counts once the state is saved."""
        for place, own in rows.items():
            self.progress["positions"][place] += len(own)
        self._pending.append(line_of(record))
        self.progress["items"] += 1

    def save(self) -> None:
        """Save everything so far, whole or not at all."""
        for tally in self.tallies.values():
            tally.require_finite()
        before = sorted(self.folder.glob("state-*"))
        lines = b"".join(self._pending)
        with told(IndexingError, f"'{self._items}' cannot be written"), self._items.open("ab") as file:
            file.truncate(self.progress["size"])
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        progress = Progress(**{**self.progress, "size": self.progress["size"] + len(lines)})

        def write(folder: Path) -> None:
            for layer, tally in self.tallies.items():
                save_file(tally.tensors(), folder / f"L{layer}.safetensors")
            write_json(folder / STATE, progress)

        number = int(before[-1].name.partition("-")[2]) + 1 if before else 0
        write_folder(self.folder / f"state-{number:09d}", write, IndexingError)
        self.progress, self._pending = progress, []
        for old in before:
            shutil.rmtree(old, ignore_errors=True)

    def lines(self) -> list[bytes]:
        """The saved items."""
        if not self.progress["size"]:
            return []
        with ordinary(self._items).open("rb") as file:
            lines = file.read(self.progress["size"]).splitlines(keepends=True)
        if len(lines) != self.progress["items"]:
            raise ValueError(f"{ITEMS} has {len(lines)} items, not {self.progress['items']}")
        return lines

    def forget(self, *, items: bool = True) -> None:
        """Take away what was begun; without ``items`` those stay."""
        for state in self.folder.glob("state-*"):
            shutil.rmtree(state)
        (self.folder / RECIPE).unlink()
        if items:
            self._items.unlink(missing_ok=True)


def recipe_of(
    model: Model, data: Mapping[str, Any], reading: Mapping[str, Any], k: int, shard: tuple[int, int]
) -> Recipe:
    """The recipe of an index of ``model``."""
    about = About(
        name=model.name, source=shareable(model.source), num_layers=model.num_layers, weights=weights_hash(model),
        likeness=likeness(model).tolist(),
    )  # fmt: skip
    writers = [
        Writers(name=str(one), layer=one.layer, expert=one.expert, first=one.first, width=one.width)
        for one in model.writers
    ]
    return Recipe(
        schema=SCHEMA, model=about, data=dict(data), reading=dict(reading), k=k, shard=list(shard), writers=writers,
        versions=versions(),
    )  # fmt: skip


def require_same(begun: Recipe, now: Recipe, where: Path, *, shards: bool = False) -> None:
    """Raise ``IndexingError`` where two recipes are not of one index, or with ``shards`` not of shards of one."""
    if not same_model(begun["model"], now["model"]) or begun["writers"] != now["writers"]:
        raise IndexingError(f"'{where}' is of another model, {begun['model']['name']}, or of other weights of it.")
    different = next((what for key, what in DIFFERENT.items() if begun[key] != now[key]), None)
    if different is not None:
        raise IndexingError(f"'{where}' is of {different}; name a new folder, or what it was begun with.")
    if begun["shard"] != now["shard"] and not shards:
        raise IndexingError(
            f"'{where}' is shard {'/'.join(map(str, begun['shard']))}; name a new folder, or that shard."
        )


def same_model(one: About, other: About) -> bool:
    """Whether two are of the same weights, by their sums where both are known."""
    if one["weights"] is not None and other["weights"] is not None:
        return one["weights"] == other["weights"]
    return alike(torch.tensor(one["likeness"]), torch.tensor(other["likeness"]))
