"""Rows of a dataset of the Hugging Face hub, or of a folder that ``datasets`` saved, through ``datasets``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from neuronwise.data.facts.rows import Row, Rows
from neuronwise.errors import DataError
from neuronwise.files import as_path

PREFIX = "hub:"
_USAGE = "hub:OWNER/NAME[@REVISION][:CONFIGURATION[:SPLIT]] (hub:OWNER/NAME::test for a split alone)"


def is_hub(source: str | os.PathLike[str]) -> bool:
    """Whether a source names the hub, or is a folder that ``datasets`` saved with ``save_to_disk``."""
    return str(source).startswith(PREFIX) or _is_saved(as_path(source, DataError))


def _is_saved(folder: Path) -> bool:
    single = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return single or (folder / "dataset_dict.json").is_file()


def read_hub(source: str | os.PathLike[str]) -> Rows:
    """Read ``hub:owner/name[@revision][:configuration[:split]]``, or a folder saved by ``datasets``.

    A dataset with several splits needs the name of one. The digest is a SHA-256 over the rows. Raises ``DataError``
    without ``datasets``, without the network, and for what ``datasets`` cannot read.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"'{source}' is read by datasets, which is not installed: pip install 'neuronwise[datasets]', "
            "or name a JSON file or a folder of them."
        ) from error
    name, revision, config, split = _parsed(source)
    try:
        if str(source).startswith(PREFIX):
            found = datasets.load_dataset(name, config, revision=revision)
        else:
            found = datasets.load_from_disk(name)
    except Exception as error:
        raise DataError(
            f"datasets could not read '{source}' ({_first_line(error)}); check the name and the network, or download "
            "its JSON files and name their folder."
        ) from error
    if isinstance(found, Mapping):
        found = found[_split(source, split, [str(name) for name in found])]
    elif split is not None and split != str(found.split):
        raise DataError(f"'{source}' has no split {split!r}.")
    rows, state = [], hashlib.sha256()
    for number, record in enumerate(found, 1):
        state.update(json.dumps(record, sort_keys=True, ensure_ascii=True, default=repr).encode() + b"\n")
        rows.append(Row(f"{source}, row {number}", number, record, str(source)))
    if not rows:
        raise DataError(f"'{source}' has no rows.")
    return Rows(tuple(rows), (), state.hexdigest())


def _parsed(source: str | os.PathLike[str]) -> tuple[str, str | None, str | None, str | None]:
    text = str(source)
    if not text.startswith(PREFIX):
        return text, None, None, None
    name, *rest = text.removeprefix(PREFIX).split(":")
    name, _, revision = name.partition("@")
    if not name or len(rest) > 2:
        raise DataError(f"'{source}' does not name a dataset; write {_USAGE}.")
    config, split = (*rest, "", "")[:2]
    return name, revision or None, config or None, split or None


def _split(source: str | os.PathLike[str], wanted: str | None, there: list[str]) -> str:
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted in there:
        return str(wanted)
    what = "several splits" if wanted is None else f"no split {wanted!r}"
    raise DataError(f"'{source}' has {what}; name one of {', '.join(map(str, there))}, as {_USAGE}.")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
