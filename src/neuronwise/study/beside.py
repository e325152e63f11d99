"""What other shards of a study, in folders beside its own, have noted: what one asked, the others need not ask."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from neuronwise.errors import NeuronwiseError
from neuronwise.files import from_json
from neuronwise.study.notes import Row


class Beside:
    """The notes of shards in folders beside ``folder`` whose manifest is ``manifest`` but for the shard.

    Other processes write them meanwhile; ``new`` reads on where it stopped.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, object], file: str) -> None:
        self._folder, self._file = folder.absolute(), file
        self._about = _without_shard(manifest)
        self._read: dict[Path, int] = {}  # bytes
        self._rows: dict[str, dict[str, Row]] = {}  # by key and part

    def new(self, keys: Sequence[str]) -> list[Row]:
        """The rows of some keys that have come since; what cannot be read is left out."""
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.parent.iterdir()):
                for row in self._added(path) if path != self._folder and self._alike(path) else ():
                    if "key" in row and row["part"] != "study":
                        self._rows.setdefault(row["key"], {}).setdefault(row["part"], row)
        return [row for key in keys for row in self._rows.pop(key, {}).values()]

    def _alike(self, folder: Path) -> bool:
        if folder in self._read:
            return True
        with contextlib.suppress(OSError, ValueError, NeuronwiseError):
            manifest = from_json((folder / "manifest.json").read_bytes())
            if isinstance(manifest, dict) and "shard" in manifest and _without_shard(manifest) == self._about:
                self._read[folder] = 0
        return folder in self._read

    def _added(self, folder: Path) -> list[Row]:
        with contextlib.suppress(OSError, ValueError), (folder / self._file).open("rb") as file:
            file.seek(self._read[folder])
            whole, end, _ = file.read().rpartition(b"\n")  # the last line may be under way
            self._read[folder] += len(whole + end)
            return [from_json(line) for line in whole.splitlines()]
        return []


def _without_shard(manifest: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in manifest.items() if key != "shard"}
