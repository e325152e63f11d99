"""Edits: permanent changes of weights, as objects that can be applied, reverted, composed, saved and shared."""

from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit, column_norms, load_edit
from neuronwise.edit.editors import EDITORS, Editor
from neuronwise.edit.fine import FineSettings, fine
from neuronwise.edit.suppress import suppress_neurons

__all__ = [
    "EDITORS", "Delta", "Edit", "Editor", "FineSettings", "column_norms", "fine", "load_edit", "suppress_neurons",
]  # fmt: skip
