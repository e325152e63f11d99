"""The table of models that a name alone opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from neuronwise.errors import ModelError
from neuronwise.registry import Registry

SOURCES: Registry[Callable[[str], Path]] = Registry(
    "model",
    {
        "builtin": "neuronwise.architectures.builtin:builtin_folder",
        "builtin-frozen": "neuronwise.architectures.builtin:builtin_folder",
        "builtin-7x7": "neuronwise.architectures.builtin:builtin_folder",
        "builtin-text": "neuronwise.architectures.builtin:builtin_folder",
    },
    kind="collections.abc:Callable",
    group="neuronwise.models",
    error=ModelError,
)
"""Models that a name alone opens: each entry makes, where need be, the folder that ``from_pretrained`` opens."""
