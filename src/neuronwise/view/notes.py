"""Notes and stars on neurons, in a JSON file of the first opened folder."""

from __future__ import annotations

import threading
from typing import Any

from neuronwise.errors import NeuronwiseError
from neuronwise.files import read_object, write_json
from neuronwise.neurons import Neuron
from neuronwise.view.asked import Noted
from neuronwise.view.viewer import Viewer

FILE, SCHEMA = "neuronwise-notes.json", "neuronwise.notes/1"
_WRITING = threading.Lock()


def read_notes(viewer: Viewer) -> dict[str, dict[str, Any]]:
    """Address → {"note": text, "star": bool}; none where there is no file. Raises for one that is damaged."""
    if not viewer.folders.roots:
        return {}
    path = viewer.folders.roots[0] / FILE
    if not path.exists():
        return {}
    content = read_object(path, "file of notes")
    notes = content.get("notes")
    if content.get("schema") != SCHEMA or not isinstance(notes, dict):
        raise NeuronwiseError(f"'{FILE}' is not a file of notes, or it is damaged.")
    return {str(name): one for name, one in notes.items() if isinstance(one, dict)}


def notes_or_why(viewer: Viewer) -> tuple[dict[str, dict[str, Any]], str | None]:
    """The notes; none, and what is wrong, where the file is damaged."""
    try:
        return read_notes(viewer), None
    except NeuronwiseError as error:
        return {}, str(error)


def write_note(viewer: Viewer, address: str, noted: Noted) -> None:
    """Keep a note and a star; an empty note without a star takes both away."""
    neuron, folder = str(Neuron.parse(address)), viewer.require_writable()
    with _WRITING:
        notes = read_notes(viewer)
        notes.pop(neuron, None)
        if noted.note.strip() or noted.star:
            notes[neuron] = {"note": noted.note.strip(), "star": noted.star}
        write_json(folder / FILE, {"schema": SCHEMA, "notes": notes})
