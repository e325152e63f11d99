"""The files of a finished index, mapped into memory as they are asked for."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from neuronwise.errors import IndexingError, NeuronError, told
from neuronwise.files import as_path, from_json, ordinary
from neuronwise.index.bins import BINS
from neuronwise.index.compact import ABOUT, LAYERS, OFFSETS, read_about
from neuronwise.index.items import ITEMS, Items
from neuronwise.index.work import RECIPE, Writers, layers_of
from neuronwise.neurons import Neuron

ARRAYS = ("moments", "histogram", "value", "item", "position", "gate")


class Stored:
    """An index on disk: ``about`` what it is of, ``writers`` by layer, ``places``, ``items``, arrays of layers.

    Raises ``IndexingError`` for a folder without a finished index, and for one that is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = as_path(folder, IndexingError)
        if not (self.folder / ABOUT).is_file():
            begun = (self.folder / RECIPE).is_file()
            raise IndexingError(
                f"The index in '{folder}' is not finished: build it again with the same settings, or merge its shards."
                if begun else f"There is no index in '{folder}': it has no {ABOUT}."
            )  # fmt: skip
        self.about = read_about(self.folder)
        self.writers = layers_of(self.about["recipe"]["writers"])
        self.places = tuple(self.about["positions"])
        self._layers: dict[int, Mapping[str, NDArray[Any]]] = {}

    @cached_property
    def items(self) -> Items:
        """The photos and texts, by their number."""
        with self._telling():
            return Items(self.folder / ITEMS, _mapped(self.folder / OFFSETS)["offsets"])

    def array(self, layer: int, name: str) -> NDArray[Any]:
        """A whole array of a layer, a view of the file."""
        if layer not in self._layers:
            with self._telling():
                arrays = _mapped(self.folder / LAYERS / f"L{layer}.safetensors")
                self._require_shapes(layer, arrays)
                self._layers[layer] = arrays
        return self._layers[layer][name]

    def _require_shapes(self, layer: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise ``ValueError`` unless a layer's arrays are of its writers, places and examples."""
        writers, places = self.writers[layer], len(self.places)
        first = sum(writer["width"] for writer in writers), places
        rest = {"moments": (3,), "histogram": (BINS,)}
        shapes = {name: (*first, *rest.get(name, (2, self.about["examples"]))) for name in ARRAYS}
        for name, shape in {**shapes, "counts": (len(writers), places)}.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name} of layer {layer} is {arrays[name].shape}, not {shape}")

    def row(self, neuron: Neuron) -> dict[str, NDArray[Any]]:
        """All arrays at one neuron, by place, and ``counts`` of its writer."""
        row, writer = self.find(neuron)
        own = {name: self.array(neuron.layer, name)[row] for name in ARRAYS}
        if not (own["item"] < len(self.items)).all():
            raise IndexingError(f"The index in '{self.folder}' is damaged: it has no item {own['item'].max()}.")
        return {**own, "counts": self.array(neuron.layer, "counts")[writer]}

    def find(self, neuron: Neuron) -> tuple[int, int]:
        """The row of a neuron in the layer's arrays, and the number of its writer; raises ``NeuronError``."""
        start = 0
        for number, writer in enumerate(self.writers.get(neuron.layer, ())):
            column = neuron.unit - writer["first"]
            if writer["expert"] == neuron.expert and 0 <= column < writer["width"]:
                return start + column, number
            start += writer["width"]
        raise NeuronError(f"There is no neuron {neuron} in this index of {self.about['recipe']['model']['name']}.")

    def place(self, name: str | None) -> tuple[int, str]:
        """A place with its number in arrays; None is the image's tokens, or where there are none the first."""
        name = ("image" if "image" in self.places else self.places[0]) if name is None else name
        if name not in self.places:
            raise IndexingError(f"place is {name!r}; this index has {', '.join(self.places)}.")
        return self.places.index(name), name

    def neuron(self, layer: int, row: int) -> Neuron:
        """The neuron at a row of a layer's arrays."""
        for writer, rows in self.parts(layer):
            if row in range(rows.start, rows.stop):
                return Neuron(layer, writer["first"] + row - rows.start, writer["expert"])
        raise NeuronError(f"Layer {layer} of this index has no row {row}.")

    def parts(self, layer: int) -> Iterator[tuple[Writers, slice]]:
        """The writers of a layer, and the rows of each."""
        start = 0
        for writer in self.writers[layer]:
            yield writer, slice(start, start + writer["width"])
            start += writer["width"]

    def _telling(self) -> AbstractContextManager[None]:
        return told(IndexingError, f"The index in '{self.folder}' is damaged")


def _mapped(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file as views of it: nothing is read before it is looked at."""
    with safe_open(ordinary(path), framework="np"):  # checks the header against the file
        pass
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = from_json(file.read(length))
    whole = np.asarray(np.memmap(path, mode="r", offset=8 + length))
    kinds = {"F32": np.float32, "I32": np.int32, "I64": np.int64, "U8": np.uint8}
    return {
        name: whole[slice(*about["data_offsets"])].view(kinds[about["dtype"]]).reshape(about["shape"])
        for name, about in header.items()
        if name != "__metadata__"
    }
