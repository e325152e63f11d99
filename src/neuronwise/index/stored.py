"""The files of a finished index, mapped into memory as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import safe_open

from neuronwise.errors import IndexingError, NeuronError, told
from neuronwise.index.compact import ABOUT, LAYERS, OFFSETS, read_about
from neuronwise.index.items import ITEMS, Items
from neuronwise.index.work import RECIPE, Writers, layers_of
from neuronwise.neurons import Neuron

EXAMPLE = ("moments", "histogram", "value", "item", "position", "gate")


class Stored:
    """An index on disk: ``about`` what it is of, ``writers`` by layer, ``places``, ``items``, arrays of layers.

    Raises ``IndexingError`` for a folder without a finished index, and for one that is damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not (self.folder / ABOUT).is_file():
            begun = (self.folder / RECIPE).is_file()
            raise IndexingError(
                f"The index in '{folder}' is not finished: build it again with the same settings, or merge its shards."
                if begun else f"There is no index in '{folder}': it has no {ABOUT}."
            )  # fmt: skip
        self.about = read_about(self.folder)
        self.writers = layers_of(self.about["recipe"]["writers"])
        self.places = tuple(self.about["positions"])
        self._files: dict[int, Any] = {}

    @cached_property
    def items(self) -> Items:
        """The photos and texts, by their number."""
        with self._telling(), safe_open(self.folder / OFFSETS, framework="np") as file:
            return Items(self.folder / ITEMS, file.get_tensor("offsets").tolist())

    def array(self, layer: int, name: str) -> NDArray[Any]:
        """A whole array of a layer."""
        with self._telling():
            return self._file(layer).get_tensor(name)

    def row(self, neuron: Neuron) -> dict[str, NDArray[Any]]:
        """All arrays at one neuron, by place, and ``counts`` of its writer."""
        row, writer = self.find(neuron)
        with self._telling():
            file = self._file(neuron.layer)
            return {**{name: file.get_slice(name)[row] for name in EXAMPLE}, "counts": file.get_slice("counts")[writer]}

    def find(self, neuron: Neuron) -> tuple[int, int]:
        """The row of a neuron in the layer's arrays, and the number of its writer; raises ``NeuronError``."""
        start = 0
        for number, writer in enumerate(self.writers.get(neuron.layer, ())):
            column = neuron.unit - writer["first"]
            if writer["expert"] == neuron.expert and 0 <= column < writer["width"]:
                return start + column, number
            start += writer["width"]
        raise NeuronError(f"There is no neuron {neuron} in this index of {self.about['recipe']['model']['name']}.")

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

    def _file(self, layer: int) -> Any:
        if layer not in self._files:
            self._files[layer] = safe_open(self.folder / LAYERS / f"L{layer}.safetensors", framework="np")
        return self._files[layer]

    def _telling(self) -> AbstractContextManager[None]:
        return told(IndexingError, f"The index in '{self.folder}' is damaged")
