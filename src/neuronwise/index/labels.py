"""Labels of neurons in words, each with what it is worth, kept beside an index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from neuronwise.errors import IndexingError, NeuronError
from neuronwise.files import read_form, write_json
from neuronwise.measure.bootstrap import Mean
from neuronwise.neurons import Neuron, ScoredNeuron, snippet

FILE, SCHEMA = "labels.json", "neuronwise.labels/1"
Addressed = Neuron | ScoredNeuron | str


@dataclass(frozen=True)
class Detection:
    """How well a label tells texts on which a neuron fires from others; none of them was seen when it was written.

    ``auc``: the share of pairs of both kinds that the judge puts in the right order. ``accuracy``: balanced, the mean
    over both kinds of the share that it gets right. Both are .5 by chance, with 95 % intervals that resample texts.
    ``firing`` and ``others`` count the texts of both kinds.
    """

    auc: Mean
    accuracy: Mean
    firing: int
    others: int


@dataclass(frozen=True)
class Control:
    """The label of another neuron of the same layer, drawn at random, put to the same texts."""

    neuron: str
    text: str
    detection: Detection


@dataclass(frozen=True)
class Label:
    """What a neuron fires on, in words that the ``explainer`` wrote from its examples at ``place``.

    ``lowest``: from those with its smallest activations. ``raises`` are tokens that the explainer was told, empty where
    the model was not at hand. ``shown`` counts the texts on which it fires that the explainer saw.
    """

    neuron: Neuron
    text: str
    explainer: str
    place: str
    lowest: bool
    seed: int
    shown: int
    raises: tuple[str, ...]
    detection: Detection
    control: Control | None

    def to_row(self) -> dict[str, Any]:
        """One row of ``labels.json``."""
        rest = asdict(self)
        return {**self.neuron.to_row(), **{name: value for name, value in rest.items() if name != "neuron"}}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Label:
        """Read a row."""
        control = row["control"]
        return cls(
            Neuron(row["layer"], row["unit"], row["expert"]), row["text"], row["explainer"], row["place"],
            row["lowest"], row["seed"], row["shown"], tuple(row["raises"]), _detection(row["detection"]),
            control and Control(control["neuron"], control["text"], _detection(control["detection"])),
        )  # fmt: skip

    def __repr__(self) -> str:
        beside = "" if self.control is None else f"; another neuron's label {self.control.detection.auc.mean:.2f}"
        return f"Label({self.neuron}: {self.text!r}, detection {self.detection.auc.mean:.2f}{beside})"


def _detection(row: Mapping[str, Any]) -> Detection:
    return Detection(_mean(row["auc"]), _mean(row["accuracy"]), row["firing"], row["others"])


def _mean(row: Mapping[str, Any]) -> Mean:
    return Mean(float(row["mean"]), float(row["low"]), float(row["high"]), int(row["n"]))


class File(TypedDict):
    """``labels.json`` (labels.schema.json): ``left_out`` says of neurons without a label why they have none."""

    schema: str
    model: str
    labels: list[dict[str, Any]]
    left_out: dict[str, str]


@dataclass
class Labels(Mapping[Addressed, Label]):
    """Labels by neuron, of an index of ``model``; ``left_out`` says of neurons without one why, by address.

    >>> index.labels["L23.U8083"].text
    >>> index.labels.search("dog")
    """

    model: str
    left_out: dict[str, str] = field(default_factory=dict)
    _labels: dict[Neuron, Label] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, model: str) -> Labels:
        """Those beside an index of ``model``, none where there is no file; raises ``IndexingError`` for a damaged one,
        and for one of another model."""
        path = folder / FILE
        if not path.is_file():
            return cls(model)
        content = read_form(path, File, "file of labels", IndexingError)
        try:
            if content["schema"] != SCHEMA or content["model"] != model:
                raise ValueError(f"it is of {content['model']}, in the form {content['schema']}")
            found = [Label.from_row(row) for row in content["labels"]]
        except (KeyError, TypeError, ValueError) as error:
            raise IndexingError(f"'{path}' is not a file of this index's labels, or it is damaged: {error}.") from error
        return cls(model, dict(content["left_out"]), {one.neuron: one for one in found})

    def write(self, folder: Path) -> None:
        """Write them beside an index."""
        write_json(folder / FILE, self.to_dict(), IndexingError)

    def to_dict(self) -> dict[str, Any]:
        """One JSON object of schema ``neuronwise.labels/1`` (labels.schema.json)."""
        rows = [one.to_row() for one in self.values()]
        return {"schema": SCHEMA, "model": self.model, "labels": rows, "left_out": self.left_out}

    def put(self, label: Label) -> None:
        """Keep a label in place of the neuron's last one."""
        self._labels[label.neuron] = label
        self.left_out.pop(str(label.neuron), None)

    def of(self, neurons: Iterable[Neuron]) -> Labels:
        """Those of some neurons alone, in their order."""
        asked = list(dict.fromkeys(neurons))
        left = {str(one): self.left_out[str(one)] for one in asked if str(one) in self.left_out}
        return Labels(self.model, left, {one: self._labels[one] for one in asked if one in self._labels})

    def search(self, words: str) -> list[Label]:
        """The labels that hold all of some words, also as parts of words, best detection first."""
        wanted = words.casefold().split()
        found = [one for one in self.values() if wanted and all(word in one.text.casefold() for word in wanted)]
        return sorted(found, key=lambda one: -one.detection.auc.mean)

    def __getitem__(self, neuron: Addressed) -> Label:
        own = neuron.neuron if isinstance(neuron, ScoredNeuron) else neuron
        own = Neuron.parse(own) if isinstance(own, str) else own
        if own not in self._labels:
            why = self.left_out.get(str(own), "see neuronwise explain")
            raise NeuronError(f"{own} has no label: {why.rstrip('.')}.")
        return self._labels[own]

    def __contains__(self, neuron: object) -> bool:
        return neuron in self._labels or (isinstance(neuron, str) and Neuron.parse(neuron) in self._labels)

    def __iter__(self) -> Iterator[Neuron]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __repr__(self) -> str:
        return f"Labels({len(self)} neurons of {self.model})"

    def _repr_html_(self) -> str:
        """For notebooks: the first labels with their detection."""
        rows = (
            [str(one.neuron), snippet.text(one.text), snippet.text(one.detection.auc.mean),
             snippet.text(None if one.control is None else one.control.detection.auc.mean)]
            for one in self.values()
        )  # fmt: skip
        return snippet.table(repr(self), ("neuron", "label", "detection", "another's"), rows, len(self))
