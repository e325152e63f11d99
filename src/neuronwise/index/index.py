"""The index of a model's neurons, read from its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open

from neuronwise.errors import IndexingError, NeuronError, told
from neuronwise.index.build import gather
from neuronwise.index.compact import ABOUT, LAYERS, OFFSETS, read_about
from neuronwise.index.entry import Entry
from neuronwise.index.items import ITEMS, Items
from neuronwise.index.merge import merge
from neuronwise.index.source import PhotosLike, TextsLike
from neuronwise.index.work import RECIPE, layers_of
from neuronwise.locate.baseline import Baseline
from neuronwise.model.state import alike, likeness
from neuronwise.neurons import Neuron, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model


class Index:
    """When every feed-forward neuron of a decoder fires, over photos and texts.

    ``places`` are the kinds of positions apart: "predicting" (the rows that predict the caption's tokens, or a text's),
    "image" (the image's tokens), "text" (all others). ``positions`` counts them, ``items`` are the photos and texts,
    ``left_out`` those that could not be read, ``model`` is the name of the model.

    >>> index = nw.Index.load("INDEX")
    >>> index["L23.U8083"].top(20)
    >>> index["L23.U8083"].at("image").mean
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
        self.model = self.about["recipe"]["model"]["name"]
        self.positions = dict(self.about["positions"])
        self.places = tuple(self.positions)
        self.left_out = {row["name"]: row["why"] for row in self.about["left_out"]}
        self._writers = layers_of(self.about["recipe"]["writers"])
        self._files: dict[int, Any] = {}

    @classmethod
    def build(
        cls,
        model: Model,
        photos: PhotosLike | None = None,
        texts: TextsLike | None = None,
        *,
        out: str | os.PathLike[str],
        shard: str | None = None,
        **options: Any,
    ) -> Index | None:
        """Index every feed-forward neuron of the decoder over photos, texts or both, into the folder ``out``.

        ``photos``: a folder (in a form of ``data.photos``, or of image files alone) or a list; ``texts``: as
        ``data.texts.read_texts`` takes them. Options, by name: ``captions="generated"`` or ``"given"``: a photo counts
        with the caption that the model writes, or with its first reference caption; ``prompt=None`` and
        ``max_new_tokens=50`` for the former; ``length=512`` tokens at which a text is cut; ``field="text"`` of rows;
        ``examples=20``: how many items with the largest and with the smallest activations are kept of each neuron;
        ``save_every=60`` seconds; ``progress(done, total)``.

        An interrupted one resumes from the state that was saved last, with the same result. ``shard="1/4"`` reads every
        fourth photo and text and returns None: ``Index.merge`` makes an index of all shards. A photo or text that
        cannot be read is left out, and named in ``left_out``. Raises ``IndexingError`` where ``out`` holds something
        else, ``DataError`` where there is nothing to read, and ``NonFiniteError``.
        """
        gather(model, photos, texts, out=out, shard=shard, **options)
        return None if shard is not None else cls(out)

    @classmethod
    def merge(cls, shards: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Index:
        """One index, in the new folder ``out``, of all shards that were built with ``shard="1/4"`` to ``"4/4"``.

        It is the index of one pass, to the byte. Raises ``IndexingError`` for a shard that is missing, given twice or
        not finished, or of another model, other data or other settings.
        """
        merge(shards, out)
        return cls(out)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Index:
        """Open the index in a folder; raises ``IndexingError`` for a folder without a finished one."""
        return cls(folder)

    def __repr__(self) -> str:
        count = f"{len(self)} neurons of {self.model} over {len(self.items)} photos and texts"
        return f"Index({count}, at {', '.join(self.places)})"

    def __len__(self) -> int:
        return sum(writer["width"] for own in self._writers.values() for writer in own)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have neurons."""
        return tuple(self._writers)

    @cached_property
    def items(self) -> Items:
        """The photos and texts, by their number."""
        with self._telling(), safe_open(self.folder / OFFSETS, framework="np") as file:
            return Items(self.folder / ITEMS, file.get_tensor("offsets").tolist())

    def __getitem__(self, neuron: Neuron | ScoredNeuron | str) -> Entry:
        """What is known of a neuron, at predicting positions; raises ``NeuronError`` for one that is not there."""
        if isinstance(neuron, str):
            neuron = Neuron.parse(neuron)
        elif isinstance(neuron, ScoredNeuron):
            neuron = neuron.neuron
        row, number = self._find(neuron)
        with self._telling():
            file = self._file(neuron.layer)
            names = ("moments", "histogram", "value", "item", "position", "gate")
            arrays = {name: file.get_slice(name)[row] for name in names}
            arrays["counts"] = file.get_slice("counts")[number]
        threshold = self.about["thresholds"][str(neuron.layer)]
        return Entry(neuron, self.places[0], self.places, threshold, arrays, self.items)

    def __contains__(self, neuron: Neuron) -> bool:
        try:
            self._find(neuron)
        except NeuronError:
            return False
        return True

    def neurons(self, layer: int) -> Iterator[Neuron]:
        """The addresses of a layer's neurons, in the order of ``array``."""
        for writer in self._writers.get(layer, ()):
            for unit in range(writer["width"]):
                yield Neuron(layer, writer["first"] + unit, writer["expert"])

    def array(self, layer: int, name: str) -> NDArray[Any]:
        """An array of a layer, (neurons, places, …): ``moments`` (mean, standard deviation, frequency), ``histogram``
        (64, as stored: see ``bins.unpacked``); ``value``, ``item``, ``position`` and ``gate`` of examples (2, k)."""
        with self._telling():
            return self._file(layer).get_tensor(name)

    def baseline(self) -> Baseline:
        """Every neuron's mean and spread at predicting positions, as ``locate`` and ``suppress`` take them.

        An expert's neuron counts with 0 where a position was not routed to it.
        """
        place, total = self.places.index("predicting"), self.positions["predicting"]
        means, spreads = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        for layer, own in self._writers.items():
            moments, start = self.array(layer, "moments")[:, place].astype(np.float64), 0
            for writer, count in zip(own, self.array(layer, "counts")[:, place], strict=True):
                mean, spread, _ = moments[start : start + writer["width"]].T
                start += writer["width"]
                usual = mean * count / total
                square = (spread**2 + mean**2) * count / total - usual**2
                means[writer["name"]] = torch.from_numpy(usual).float()
                spreads[writer["name"]] = torch.from_numpy(np.sqrt(square.clip(0))).float()
        model, recipe = self.about["recipe"]["model"], self.about["recipe"]
        record = {
            "model": self.model, "num_layers": model["num_layers"], "source": "index", "positions": total,
            "weights": model["weights"], "versions": recipe["versions"],
        }  # fmt: skip
        return Baseline(means, spreads, record, torch.tensor(model["likeness"]))

    def require(self, model: Model) -> None:
        """Raise ``IndexingError`` where the index is of another model; edits of ``model`` do not matter."""
        own = {writer["name"]: writer["width"] for writer in self.about["recipe"]["writers"]}
        like = torch.tensor(self.about["recipe"]["model"]["likeness"])
        if own != {str(one): one.width for one in model.writers} or not alike(like, likeness(model)):
            raise IndexingError(f"This index is of {self.model}, not of {model.name}; build one for it.")

    def _file(self, layer: int) -> Any:
        if layer not in self._files:
            self._files[layer] = safe_open(self.folder / LAYERS / f"L{layer}.safetensors", framework="np")
        return self._files[layer]

    def _find(self, neuron: Neuron) -> tuple[int, int]:
        """The row of a neuron in the layer's arrays, and the number of its writer in the layer."""
        start = 0
        for number, writer in enumerate(self._writers.get(neuron.layer, ())):
            column = neuron.unit - writer["first"]
            if writer["expert"] == neuron.expert and 0 <= column < writer["width"]:
                return start + column, number
            start += writer["width"]
        raise NeuronError(f"There is no neuron {neuron} in this index of {self.model}.")

    def _telling(self) -> Any:
        return told(IndexingError, f"The index in '{self.folder}' is damaged")
