"""A model's architecture alone: its configuration is read, its weights are not."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from transformers import AutoConfig

from neuronwise.errors import ModelError
from neuronwise.model.model import Model
from neuronwise.model.source import auto_class, checkpoint_of, opening, register_families


def outline(source: str | os.PathLike[str], *, trust_remote_code: bool = False) -> Model:
    """What ``load`` would open, on the meta device: layers, writers and widths, without memory for weights.

    ``source`` as for ``load``; a folder needs no more than its config.json. Raises ``ModelError`` as ``load`` does.
    """
    register_families()
    name = os.fspath(source)
    path, within = checkpoint_of(name)
    options: dict[str, object] = {"trust_remote_code": trust_remote_code, **within}
    if Path(path).is_dir() and not within and not (Path(path) / "config.json").is_file():
        raise ModelError(f"The folder '{path}' is not a checkpoint: it has no config.json.")
    with opening(f"The configuration of '{name}' cannot be opened"):
        config = AutoConfig.from_pretrained(path, **options)
        auto = auto_class(config)
        with torch.device("meta"):
            module = auto.from_config(config, trust_remote_code=trust_remote_code)
    return Model(module, name=name, check=False)
