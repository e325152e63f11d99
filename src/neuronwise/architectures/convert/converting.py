"""Converting by one of the table's converters."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch

from neuronwise.architectures.convert.converters import CONVERTERS
from neuronwise.architectures.convert.writer import SHARD_BYTES, Progress, write
from neuronwise.errors import ModelError
from neuronwise.files import expanded


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
    plan = converter([expanded(part, ModelError) for part in parts])
    return write(plan, out, dtype=dtype, shard_bytes=shard_bytes, progress=progress)
