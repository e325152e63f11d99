"""A model's architecture alone: its configuration is read, its weights are not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from neuronwise.errors import ModelError, NeuronwiseError
from neuronwise.model.model import Model
from neuronwise.model.source import auto_class, checkpoint_of, register_families


def outline(source: str | os.PathLike[str], *, trust_remote_code: bool = False) -> Model:
    """What ``load`` would open, on the meta device: layers, widths and places of neurons, and no memory for weights.

    ``source`` as for ``load``; a folder needs no more than its config.json. Raises ``ModelError`` as ``load`` does.
    """
    import torch
    import transformers

    register_families()
    name = os.fspath(source)
    path, within = checkpoint_of(name)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, **within}
    if Path(path).is_dir() and not within and not (Path(path) / "config.json").is_file():
        raise ModelError(f"The folder '{path}' is no checkpoint: it has no config.json.")
    try:
        config = transformers.AutoConfig.from_pretrained(path, **options)
        auto = auto_class(config)
        with torch.device("meta"):
            module = auto.from_config(config, trust_remote_code=trust_remote_code)
    except NeuronwiseError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, AssertionError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"The configuration of '{name}' cannot be opened: {reason}") from error
    return Model(module, name=name, check=False)
