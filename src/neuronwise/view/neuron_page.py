"""The page of a neuron: what is known of it from the opened folders; what the model adds is asked by the page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from neuronwise.errors import NeuronwiseError
from neuronwise.neurons import Neuron
from neuronwise.view.folders import Folders, Item
from neuronwise.view.index_page import indexed, indexes
from neuronwise.view.notes import notes_or_why
from neuronwise.view.pages import Page
from neuronwise.view.viewer import Viewer

MOST = 100  # places that are listed


def neuron_page(viewer: Viewer, address: str) -> Page:
    """The page of one neuron; raises ``NeuronError`` for a misspelled address."""
    neuron = Neuron.parse(address)
    places = sorted(occurrences(viewer.folders, neuron), key=lambda place: bool(place["part_of"]))  # several first
    notes, why = notes_or_why(viewer)
    data = {
        "address": str(neuron),
        **neuron.to_row(),
        "places": places[:MOST],
        "count": len(places),
        "live": viewer.live is not None,
        "writable": not viewer.read_only and bool(viewer.folders.roots) and why is None,
        "index": indexed(viewer, neuron),
        "indexes": [item.title for item in indexes(viewer)],
        "noted": notes.get(str(neuron), {}),
        "note": why,
    }
    return Page("neuron", f"{neuron} · neuronwise", ("neuron",), {"neuron": data})


def occurrences(folders: Folders, neuron: Neuron) -> Iterator[dict[str, Any]]:
    """Where a neuron occurs in the opened folders: among a word's neurons, in a circuit, changed by an edit."""
    titles = {item.id: item.title for item in folders.items()}
    for item in folders.items():
        read = _READ.get(item.kind)
        if read is None or item.broken:
            continue
        try:
            for row in read(folders, item, neuron):
                yield {
                    "kind": item.kind,
                    "id": item.id,
                    "title": item.title,
                    "part_of": titles.get(item.part_of),
                    **row,
                }
        except (NeuronwiseError, OSError, KeyError, TypeError, ValueError, AttributeError):
            continue  # the item's own page says what is wrong with it


def _is(row: dict[str, Any], neuron: Neuron) -> bool:
    return (row["layer"], row["unit"], row.get("expert")) == (neuron.layer, neuron.unit, neuron.expert)


def _in_finding(folders: Folders, item: Item, neuron: Neuron) -> Iterator[dict[str, Any]]:
    content = folders.content(item.path / "finding.json", "finding")
    for concept in content["concepts"]:
        for rank, row in enumerate(concept["neurons"]):
            if _is(row, neuron):
                kept = {key: row.get(key) for key in ("score", "activation", "baseline", "raises", "lowers")}
                yield {"word": str(concept["word"]), "rank": rank + 1, "of": len(concept["neurons"]), **kept}


def _in_circuit(folders: Folders, item: Item, neuron: Neuron) -> Iterator[dict[str, Any]]:
    content = folders.content(item.path / "circuit.json", "circuit")
    for row in content["nodes"]:
        if _is(row, neuron):
            yield {"word": str(content["target"]), "place": row["place"], "score": row["score"]}


def _in_edit(folders: Folders, item: Item, neuron: Neuron) -> Iterator[dict[str, Any]]:
    record = folders.content(item.path / "edit.json", "edit")["record"]
    if str(neuron) in record.get("neurons", ()):
        yield {"word": str(record.get("method", ""))}


_READ = {"finding": _in_finding, "circuit": _in_circuit, "edit": _in_edit}
