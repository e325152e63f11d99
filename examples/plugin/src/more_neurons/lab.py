"""A model with a name of its own: a folder that the environment names."""

from __future__ import annotations

import os
from pathlib import Path

from neuronwise.errors import ModelError


def lab_folder(name: str) -> Path:
    """The folder of a checkpoint, which may be made here; raises ``ModelError`` where there is none."""
    folder = Path(os.environ.get("LAB_MODEL", "lab-model"))
    if not folder.is_dir():
        raise ModelError(f"The model {name!r} is a folder that LAB_MODEL names; '{folder}' is not there.")
    return folder
