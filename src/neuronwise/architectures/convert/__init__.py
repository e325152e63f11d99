"""Published checkpoints that transformers cannot open, made into ordinary Hugging Face folders.

``CONVERTERS`` names them; a converter is one file with a function from the parts that a user downloaded to a ``Plan``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from neuronwise.architectures.convert.plan import Plan, Recipe, taken
from neuronwise.architectures.convert.weights import Weights, open_weights
from neuronwise.architectures.convert.writer import SHARD_BYTES, Progress, write
from neuronwise.errors import ModelError


@dataclass(frozen=True)
class Converter:
    """Its module is opened when it is needed."""

    module: str

    def plan(self, parts: Sequence[Path]) -> Plan:
        """How the conversion of these parts is laid out."""
        return import_module(self.module).plan(parts)


CONVERTERS: dict[str, Converter] = {
    "minigpt4": Converter("neuronwise.architectures.convert.minigpt4"),
    "mplug_owl2": Converter("neuronwise.architectures.convert.mplug_owl2"),
}


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
    written in shards of at most ``shard_bytes``, so that memory holds one shard. A conversion that was cut off is gone
    on with by the same call. Raises ``ModelError`` for what does not fit, and then nothing is written.
    """
    known = name.lower().replace("-", "_")
    if known not in CONVERTERS:
        raise ModelError(f"There is no converter '{name}'; choose one of {', '.join(CONVERTERS)}.")
    plan = CONVERTERS[known].plan([Path(part).expanduser() for part in parts])
    return write(plan, out, dtype=dtype, shard_bytes=shard_bytes, progress=progress)


__all__ = [
    "CONVERTERS",
    "Converter",
    "Plan",
    "Recipe",
    "Weights",
    "convert",
    "open_weights",
    "taken",
    "write",
]
