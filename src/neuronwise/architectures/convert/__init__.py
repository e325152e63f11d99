"""Published checkpoints that transformers cannot open, made into ordinary Hugging Face folders.

``CONVERTERS`` names them; a converter is one file with a function from the parts that a user downloaded to a ``Plan``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from neuronwise.architectures.convert.plan import Plan, Recipe, taken
from neuronwise.architectures.convert.weights import Weights, open_weights
from neuronwise.architectures.convert.writer import SHARD_BYTES, Progress, write
from neuronwise.errors import ModelError
from neuronwise.registry import Registry

CONVERTERS: Registry[Callable[[Sequence[Path]], Plan]] = Registry(
    "converter",
    {
        "minigpt4": "neuronwise.architectures.convert.minigpt4:plan",
        "mplug_owl2": "neuronwise.architectures.convert.mplug_owl2:plan",
    },
    group="neuronwise.converters",
    error=ModelError,
)
"""Each lays out how downloaded parts become a checkpoint; raises ``ModelError`` for what does not fit."""


def convert(
    name: str,
    parts: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make the published checkpoint ``name`` (of ``CONVERTERS``) an ordinary folder; the record of what was made.

    ``parts`` are the files and folders as they were downloaded, in any order. Tensors are read one at a time and
    written in shards of at most ``shard_bytes``, so that memory holds one shard. The same call resumes
    an interrupted conversion. Raises ``ModelError`` for what does not fit, and then nothing is written.
    """
    known = name.lower().replace("-", "_")
    converter = CONVERTERS[known if known in CONVERTERS else name]
    plan = converter([Path(part).expanduser() for part in parts])
    return write(plan, out, dtype=dtype, shard_bytes=shard_bytes, progress=progress)


__all__ = [
    "CONVERTERS",
    "Plan",
    "Recipe",
    "Weights",
    "convert",
    "open_weights",
    "taken",
    "write",
]
