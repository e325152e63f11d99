"""Labels of neurons as pages show them: of one neuron, of an index, and those that hold some words."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.errors import NeuronwiseError
from neuronwise.view.folders import Item
from neuronwise.view.viewer import Viewer

if TYPE_CHECKING:
    from neuronwise.index import Label, Labels

MOST = 2000  # labels of an index that a page lists
FOUND = 50


@functools.lru_cache(maxsize=8)
def _read(path: Path, model: str, changed: int) -> Labels:
    from neuronwise.index import Labels

    return Labels.read(path, model)


def labels_of(item: Item) -> Labels:
    """The labels beside an index, read again when they have changed; raises ``IndexingError`` for a damaged file."""
    file = item.path / "labels.json"
    return _read(item.path, item.model, file.stat().st_mtime_ns if file.is_file() else 0)


def labels_or_why(item: Item) -> tuple[Labels, str | None]:
    """The labels beside an index; none, and what is wrong, where the file is damaged."""
    try:
        return labels_of(item), None
    except NeuronwiseError as error:
        from neuronwise.index import Labels

        return Labels(item.model), str(error)


def label_row(label: Label) -> dict[str, Any]:
    """A label as plain JSON values: ``detection`` its mean and interval, ``control`` the mean of another's."""
    auc, control = label.detection.auc, label.control
    return {
        "neuron": str(label.neuron), "text": label.text, "explainer": label.explainer, "place": label.place,
        "lowest": label.lowest, "detection": [auc.mean, auc.low, auc.high],
        "control": None if control is None else control.detection.auc.mean,
    }  # fmt: skip


def label_rows(labels: Iterable[Label], most: int = MOST) -> list[dict[str, Any]]:
    """Labels, best detection first."""
    return [label_row(one) for one in sorted(labels, key=lambda one: -one.detection.auc.mean)[:most]]


def labels_with(viewer: Viewer, words: str) -> list[dict[str, Any]]:
    """The labels of all opened indexes that hold some words."""
    indexes = [item for item in viewer.folders.items() if item.kind == "index" and not item.broken]
    return label_rows((one for item in indexes for one in labels_of(item).search(words)), FOUND)
