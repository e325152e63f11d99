"""The page of an edit: what was asked, its verdict, and what it changed in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuronwise.errors import NeuronwiseError
from neuronwise.files import below
from neuronwise.view.asked import Changed, MadeEdit
from neuronwise.view.folders import Folders, Item
from neuronwise.view.live import TOKENS, Live
from neuronwise.view.pages import Page
from neuronwise.view.worker import Event, Job

if TYPE_CHECKING:
    from neuronwise.edit import Edit
    from neuronwise.model import Model
    from neuronwise.view.viewer import Viewer

COLUMNS = 20  # neurons whose tokens are read before and after


def edit_page(folders: Folders, item: Item, *, live: bool) -> Page:
    """The record of an edit; what it changes in words is asked of the model by the page."""
    content = folders.content(item.path / "edit.json", "saved edit")
    data = {"id": item.id, "title": item.title, "record": content["record"], "deltas": content["deltas"], "live": live}
    return Page("edit", f"{item.title} · neuronwise", ("edit",), {"edit": data})


def edit_state(viewer: Viewer, live: Live, job: Job, asked: Changed) -> Event:
    """Whether an edit is applied, and what its columns raise and lower without it and with it."""
    model, edit = live.model(job), _edit(viewer, asked)
    job.tell("reading what it changes")
    return {"applied": edit.applied_to(model), "edits": len(model.edits), "changes": _changes(model, edit)}


def apply_edit(viewer: Viewer, live: Live, job: Job, asked: Changed) -> Event:
    """Apply an edit to the viewer's model."""
    model, edit = live.model(job), _edit(viewer, asked)
    edit.apply(model)
    return {"applied": True, "edits": len(model.edits)}


def revert_edit(viewer: Viewer, live: Live, job: Job, asked: Changed) -> Event:
    """Take an edit out of the viewer's model."""
    model, edit = live.model(job), _edit(viewer, asked)
    edit.revert(model)
    return {"applied": False, "edits": len(model.edits)}


def make_edit(viewer: Viewer, live: Live, job: Job, asked: MadeEdit) -> Event:
    """Save a neuron's scaling as an edit below the first opened folder; the address of its page."""
    from neuronwise.edit.suppress import scale_neurons
    from neuronwise.neurons import NeuronSet

    root, model = viewer.require_writable(), live.model(job)
    if below(root, "edits") is None and (root / "edits").is_symlink():
        raise NeuronwiseError("'edits' of the first folder is a link out of it; nothing is written there.")
    folder = root / "edits" / asked.name
    job.tell("making the edit")
    scale_neurons(model, NeuronSet.of([asked.neuron]), asked.factor).save(folder)
    return {"href": f"/edit/0/edits/{asked.name}"}


def _edit(viewer: Viewer, asked: Changed) -> Edit:
    from neuronwise.edit import load_edit

    return load_edit(viewer.item("edit", asked.item).path)


def _changes(model: Model, edit: Edit) -> dict[str, Any]:
    """Neuron → what it raises and lowers before and after, for the columns that change most."""
    from neuronwise.edit.changes import changed_neurons

    return {
        str(one.neuron): {
            "size": one.size,
            "before": [one.before.raises, one.before.lowers],
            "after": [one.after.raises, one.after.lowers],
        }
        for one in changed_neurons(model, edit, COLUMNS, TOKENS)
    }
