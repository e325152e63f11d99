"""The editors of facts by name; adding one is a file with an ``Editor`` and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuronwise.errors import MethodError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.edit.editor import Editor

EDITORS: Registry[Editor] = Registry(
    "editor",
    {
        "fine": "neuronwise.edit.fine:EDITOR",
        "fine_specific": "neuronwise.edit.fine.specific:EDITOR",
        "fine_tune": "neuronwise.edit.fine_tune:EDITOR",
        "lora": "neuronwise.edit.lora:EDITOR",
        "in_context": "neuronwise.edit.in_context:EDITOR",
        "grace": "neuronwise.edit.grace:EDITOR",
        "wise": "neuronwise.edit.wise:EDITOR",
        "decoupled": "neuronwise.edit.decoupled:EDITOR",
        "knowledge_neurons": "neuronwise.edit.knowledge_neurons:EDITOR",
        "rome": "neuronwise.edit.rome:EDITOR",
        "rome_published": "neuronwise.edit.rome_published:EDITOR",
        "memit": "neuronwise.edit.memit:EDITOR",
        "pmet": "neuronwise.edit.pmet:EDITOR",
        "emmet": "neuronwise.edit.emmet:EDITOR",
        "namet": "neuronwise.edit.namet:EDITOR",
        "alphaedit": "neuronwise.edit.alphaedit:EDITOR",
        "encore": "neuronwise.edit.encore:EDITOR",
        "ultraedit": "neuronwise.edit.ultraedit:EDITOR",
    },
    kind="neuronwise.edit.editor:Editor",
    group="neuronwise.editors",
    error=MethodError,
)
