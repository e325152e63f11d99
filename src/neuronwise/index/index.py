"""The index of a model's neurons, read from its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuronwise.errors import IndexingError, NeuronError
from neuronwise.index import run_beside, search
from neuronwise.index.build import EXAMPLES, SAVE_EVERY, gather
from neuronwise.index.entry import Entry
from neuronwise.index.items import Items
from neuronwise.index.labels import Labels
from neuronwise.index.merge import merge
from neuronwise.index.reading import Reading
from neuronwise.index.source import PhotosLike, Source, TextsLike
from neuronwise.index.stored import ARRAYS, Stored
from neuronwise.locate.baseline import Baseline
from neuronwise.model.model import Model
from neuronwise.model.modes import computes
from neuronwise.model.state import alike, likeness
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron, as_neurons
from neuronwise.read.writing import neurons_writing
from neuronwise.registry.arguments import checked

if TYPE_CHECKING:
    from neuronwise.model import Run

WAYS = ("fires", "writes")


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
        self._stored = Stored(folder)
        self.folder, self.about = self._stored.folder, self._stored.about
        self.model = self.about["recipe"]["model"]["name"]
        self.positions = dict(self.about["positions"])
        self.places = self._stored.places
        self.left_out = {row["name"]: row["why"] for row in self.about["left_out"]}

    @classmethod
    @checked
    def build(
        cls,
        model: Model,
        photos: PhotosLike | None = None,
        texts: TextsLike | None = None,
        *,
        out: str | os.PathLike[str],
        captions: str = "generated",
        prompt: str | None = None,
        max_new_tokens: int = 50,
        length: int = 512,
        field: str = "text",
        batch_size: int = 8,
        examples: int = EXAMPLES,
        shard: str | None = None,
        save_every: float = SAVE_EVERY,
        progress: Callable[[int, int], None] | None = None,
    ) -> Index | None:
        """Index every feed-forward neuron of the decoder over photos, texts or both, into the folder ``out``.

        ``photos``: a folder (in a form of ``data.photos``, or of image files alone) or a list; ``texts``: as
        ``data.texts.read_texts`` takes them, with their ``field`` of rows; one longer than ``length`` tokens is read in
        windows. A photo counts with the caption that the model writes (``prompt``, ``max_new_tokens``), or with
        ``captions="given"`` with its first reference caption; ``batch_size`` photos or texts are read together.
        ``examples``: how many items with the largest and with the smallest activations are kept of each neuron.
        ``progress(done, total)`` is told of photos and texts.

        The state is saved every ``save_every`` seconds; called again after an interruption it resumes from there, with
        the same result. ``shard="1/4"`` reads every fourth batch and returns None: ``Index.merge`` makes an index of
        all shards. A photo or text that cannot be read is left out, and named in ``left_out``. Raises
        ``IndexingError`` where ``out`` holds something else, ``DataError`` where there is nothing to read, and
        ``NonFiniteError``.
        """
        reading = Reading(captions, prompt, max_new_tokens, length, batch_size)
        source = Source.of(photos, texts, field)
        gather(model, source, out, reading, examples=examples, shard=shard, save_every=save_every, progress=progress)
        return None if shard is not None else cls(out)

    @classmethod
    @checked
    def merge(cls, shards: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Index:
        """One index, in the new folder ``out``, of all shards that were built with ``shard="1/4"`` to ``"4/4"``.

        It is the index of one pass, to the byte. Raises ``IndexingError`` for a shard that is missing, given twice or
        not finished, or of another model, other data or other settings.
        """
        merge(shards, out)
        return cls(out)

    @classmethod
    @checked
    def load(cls, folder: str | os.PathLike[str]) -> Index:
        """Open the index in a folder; raises ``IndexingError`` for a folder without a finished one."""
        return cls(folder)

    def __repr__(self) -> str:
        count = f"{len(self)} neurons of {self.model} over {len(self.items)} photos and texts"
        return f"Index({count}, at {', '.join(self.places)})"

    def __len__(self) -> int:
        return sum(writer["width"] for own in self._stored.writers.values() for writer in own)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have neurons."""
        return tuple(self._stored.writers)

    @property
    def items(self) -> Items:
        """The photos and texts, by their number."""
        return self._stored.items

    @property
    def labels(self) -> Labels:
        """What neurons fire on in words, as ``nw.explain`` kept it beside the index; empty before that."""
        return Labels.read(self.folder, self.model)

    def place(self, name: str | None = None) -> str:
        """A place by its name, by default "image" where there are photos; raises ``IndexingError`` for another name."""
        return self._stored.place(name)[1]

    def __getitem__(self, neuron: Neuron | ScoredNeuron | str) -> Entry:
        """What is known of a neuron, at predicting positions; raises ``NeuronError`` for one that is not there."""
        own = _neuron(neuron)
        arrays = self._stored.row(own)
        return Entry(own, self.places[0], self.places, self.about["thresholds"][str(own.layer)], arrays, self.items)

    def __contains__(self, neuron: Neuron | ScoredNeuron | str) -> bool:
        try:
            self._stored.find(_neuron(neuron))
        except NeuronError:
            return False
        return True

    def neurons(self, layer: int) -> Iterator[Neuron]:
        """The addresses of a layer's neurons, in the order of ``array``."""
        for writer, _ in self._stored.parts(layer) if layer in self.layers else ():
            for unit in range(writer["width"]):
                yield Neuron(layer, writer["first"] + unit, writer["expert"])

    def array(self, layer: int, name: str) -> NDArray[Any]:
        """An array of a layer, (neurons, places, …): ``moments`` (mean, standard deviation, frequency), ``histogram``
        (64, as stored: see ``bins.unpacked``); ``value``, ``item``, ``position`` and ``gate`` of examples (2, k)."""
        if layer not in self.layers or name not in ARRAYS:
            raise IndexingError(f"There is no array {name!r} of layer {layer}; arrays are {', '.join(ARRAYS)}.")
        return self._stored.array(layer, name)

    def baseline(self) -> Baseline:
        """Every neuron's mean and spread at predicting positions, as ``locate`` and ``suppress`` take them.

        An expert's neuron counts with 0 where a position was not routed to it.
        """
        place, total = self.places.index("predicting"), self.positions["predicting"]
        means, spreads = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
        for layer in self.layers:
            moments = self._stored.array(layer, "moments")[:, place].astype(np.float64)
            counts = self._stored.array(layer, "counts")[:, place]
            for (writer, rows), count in zip(self._stored.parts(layer), counts, strict=True):
                mean, spread, _ = moments[rows].T
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

    @computes
    def locate(
        self,
        word: str,
        by: str = "fires",
        *,
        model: Model | None = None,
        place: str | None = None,
        lowest: bool = False,
        top: int = 100,
    ) -> NeuronSet:
        """The neurons of a word: those that fire on what names it, or those that write it.

        ``by="fires"``: how well a neuron tells the photos and texts whose caption or text names the word (reference
        captions included) from the others, as the area under the ROC curve of its largest activation in each, at
        ``place`` (by default the image's tokens where there are any). .5 is chance. Only the items that are kept of a
        neuron have an order, so of many items the best are little above .5; equals are ordered by how many standard
        deviations above its mean a neuron is on the best of them. ``by="writes"``: as
        ``read.neurons_writing``, by the value vectors; it needs the ``model``. ``lowest``: the
        neurons that fire negatively on it, or lower it. Raises ``IndexingError`` where no item names the word, or all
        do.
        """
        if self._reads(by, model):
            assert model is not None
            return neurons_writing(model, word, top, turned=lowest)
        record = {"method": f"index {by}", "word": word, "lowest": lowest, "model": self.model}
        scored, about = search.firing_on(self._stored, word, place, lowest)
        return search.best(self._stored, scored, top, record | about)

    @computes
    def similar(
        self,
        neuron: Neuron | ScoredNeuron | str,
        by: str = "fires",
        *,
        model: Model | None = None,
        place: str | None = None,
        top: int = 20,
    ) -> NeuronSet:
        """The neurons most like one: those that fire on the same photos and texts, or those that write alike.

        ``by="fires"``: the correlation, over all items, of the ranks of those that are kept of each neuron, at
        ``place`` (by default the image's tokens where there are any): 1 for the same items in the same order, about 0
        by chance. ``by="writes"``: cos of the value vectors; it needs the ``model``.
        """
        own = _neuron(neuron)
        self._stored.find(own)
        record = {"method": f"index similar {by}", "neuron": str(own), "model": self.model}
        if self._reads(by, model):
            assert model is not None
            return search.best(self._stored, search.writing_like(self._stored, model, own), top, record, own)
        scored, about = search.firing_like(self._stored, own, place)
        return search.best(self._stored, scored, top, record | about, own)

    @computes
    def firing_in(self, run: Run, place: str | None = None, *, top: int = 100) -> NeuronSet:
        """The neurons that fire most in a run, each by its own measure: its largest activation above its mean, as a
        share of how far its examples lie above it on average. 1: as high as on its examples.

        ``place`` is by default the image's tokens of a run with a photo, else the predicting positions. Raises
        ``IndexingError`` where the index is of another model than the run, or the run has no such positions.
        """
        self.require(run.model)
        record = {"method": "index firing in a run", "model": self.model}
        scored, about = run_beside.firing_in(self._stored, run, place)
        return search.best(self._stored, scored, top, record | about)

    @computes
    def selective(self, place: str | None = None, *, lowest: bool = False, top: int = 100) -> NeuronSet:
        """The neurons whose examples stand out most: by how many standard deviations the mean of those that are kept
        lies above the neuron's mean, at ``place`` (by default the image's tokens where there are any).

        At most half of the photos and texts count as examples. ``lowest``: the smallest, below the mean.
        """
        record = {"method": "index selective", "model": self.model, "lowest": lowest}
        scored, about = search.standing_out(self._stored, place, lowest)
        return search.best(self._stored, scored, top, record | about)

    def require(self, model: Model) -> None:
        """Raise ``IndexingError`` where the index is of another model; edits of ``model`` do not matter."""
        own = {writer["name"]: writer["width"] for writer in self.about["recipe"]["writers"]}
        like = torch.tensor(self.about["recipe"]["model"]["likeness"])
        if own != {str(one): one.width for one in model.writers} or not alike(like, likeness(model)):
            raise IndexingError(f"This index is of {self.model}, not of {model.name}; build one for it.")

    def _reads(self, by: str, model: Model | None) -> bool:
        """Whether neurons are compared by what they write, for which the model is at hand."""
        if by not in WAYS:
            raise IndexingError(f"by is {by!r}; choose {' or '.join(WAYS)}.")
        if by == "writes":
            if model is None:
                raise IndexingError(f"by='writes' reads the weights: give model=, {self.model} opened.")
            self.require(model)
        return by == "writes"


def _neuron(given: Neuron | ScoredNeuron | str) -> Neuron:
    named = as_neurons(given)
    if len(named) != 1:
        raise NeuronError(f"An index is asked for one neuron, not for {len(named)}.")
    return named[0]
