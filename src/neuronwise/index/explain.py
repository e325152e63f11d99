"""Words for neurons: labels that a local model writes from an index's examples, each with what it is worth."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Sequence

from neuronwise.errors import IndexingError
from neuronwise.files import held
from neuronwise.index.cases import Cases, cases_of
from neuronwise.index.explainer import detect, write
from neuronwise.index.index import Index
from neuronwise.index.labels import Control, Label, Labels
from neuronwise.model import Model
from neuronwise.model.load import load
from neuronwise.model.modes import computes
from neuronwise.neurons import Neuron, Neurons, as_neurons
from neuronwise.read.decode import effects
from neuronwise.registry.arguments import checked

EXPLAINER = "builtin-text"
TOP = 20  # neurons that are explained where none is named
DRAWN = 10  # random neurons that are looked at for one that has a label
SAVE_EVERY = 10.0  # seconds


@computes
@checked
def explain(
    index: Index | str | os.PathLike[str],
    neurons: Neurons | None = None,
    *,
    top: int | None = None,
    model: Model | None = None,
    explainer: Model | str | None = None,
    place: str | None = None,
    lowest: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Labels:
    """Labels in words of what ``neurons`` fire on, or of the ``top`` ones whose examples stand out most (20).

    The ``explainer`` (by default "builtin-text"), a local language model, reads half of the photos' captions and texts
    that the index keeps of a neuron at ``place`` (by default the image's tokens where there are any), and with a
    ``model`` the tokens that the neuron raises. ``lowest``: those with its smallest activations, and what it lowers. It
    then judges, as ``Label.detection``, whether the label tells the other half from as many texts drawn at random, and
    the same for the label of a random other neuron of the layer (``Label.control``).

    Labels are kept beside the index, in ``labels.json`` (``Index.labels``), one for each neuron, and not written again
    for the same explainer, place, end and seed; so an interrupted call resumes. Neurons that fire on too few texts are
    in ``left_out`` of the result. Raises ``IndexingError``, and ``NeuronError`` for a neuron that is not in the index.
    """
    opened = index if isinstance(index, Index) else Index.load(index)
    place = opened.place(place)
    if neurons is not None and top is not None:
        raise IndexingError("Give neurons or top, not both.")
    if neurons is None:
        neurons = opened.selective(place, lowest=lowest, top=TOP if top is None else top)
    asked = as_neurons(neurons)
    for neuron in asked:
        opened[neuron]  # raises for one that is not there
    if model is not None:
        opened.require(model)
    speaker = explainer if isinstance(explainer, Model) else load(explainer or EXPLAINER)
    writer = _Writer(opened, speaker, model, place, lowest, seed)
    with held(opened.folder, IndexingError):
        return _explained(opened, list(dict.fromkeys(asked)), writer, progress)


def _explained(
    index: Index, neurons: Sequence[Neuron], writer: _Writer, progress: Callable[[int, int], None] | None
) -> Labels:
    labels, saved, new = index.labels, time.monotonic(), False
    try:
        for done, neuron in enumerate(neurons, 1):
            if neuron not in labels or not writer.wrote(labels[neuron]):
                try:
                    labels.put(writer.label(neuron))
                    new = True
                except IndexingError as error:
                    labels.left_out[str(neuron)] = str(error)
            if new and time.monotonic() - saved > SAVE_EVERY:
                labels.write(index.folder)
                saved, new = time.monotonic(), False
            if progress is not None:
                progress(done, len(neurons))
    finally:
        if new:
            labels.write(index.folder)
    return labels.of(neurons)


class _Writer:
    """Writes labels of one explainer at one place, and knows those that it wrote."""

    def __init__(
        self, index: Index, explainer: Model, model: Model | None, place: str, lowest: bool, seed: int
    ) -> None:
        self.index, self.explainer, self.model = index, explainer, model
        self.place, self.lowest, self.seed = place, lowest, seed
        self.kinds = list(index.items.kinds())

    def wrote(self, label: Label) -> bool:
        own = (self.explainer.name, self.place, self.lowest, self.seed, self.model is not None)
        return own == (label.explainer, label.place, label.lowest, label.seed, bool(label.raises))

    def label(self, neuron: Neuron) -> Label:
        cases = self._cases(neuron)
        text, raises = self._text(neuron, cases)
        return Label(
            neuron, text, self.explainer.name, self.place, self.lowest, self.seed, len(cases.shown), raises,
            detect(self.explainer, text, cases), self._control(neuron, cases),
        )  # fmt: skip

    def _cases(self, neuron: Neuron) -> Cases:
        return cases_of(self.index, self.kinds, neuron, self.place, self.lowest, self.seed)

    def _text(self, neuron: Neuron, cases: Cases) -> tuple[str, tuple[str, ...]]:
        raises = () if self.model is None else self._raises(self.model, neuron)
        text = write(self.explainer, cases, raises)
        if not text:
            raise IndexingError(f"{self.explainer.name} wrote no word for {neuron}.")
        return text, raises

    def _raises(self, model: Model, neuron: Neuron) -> tuple[str, ...]:
        (ends,) = effects(model, [neuron])
        return tuple(ends.lowers if self.lowest else ends.raises)

    def _control(self, neuron: Neuron, cases: Cases) -> Control | None:
        """The label of another neuron of the layer, by lot; None where ten in a row have none."""
        draw = random.Random(f"control of {neuron} {self.seed}")
        others = [one for one in self.index.neurons(neuron.layer) if one != neuron]
        for other in draw.sample(others, min(DRAWN, len(others))):
            with contextlib.suppress(IndexingError):
                text = self._text(other, self._cases(other))[0]
                return Control(str(other), text, detect(self.explainer, text, cases))
        return None
