"""The folder of a study: what was to be done (manifest), what is done (lines), and the table of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from neuronwise.errors import NeuronwiseError, NothingToStudy, StudyError
from neuronwise.files import Lines, parsed, versions, whole_file, write_json

MANIFEST, BEFORE, CASES, TABLE = "manifest.json", "before.jsonl", "cases.jsonl", "cases.parquet"


class Store:
    """``cases`` holds one row for each finished case, ``before`` what was found before anything was changed.

    A folder goes on where it stopped when ``recipe`` (plain JSON values) is the one that it was begun with; ``about``
    is noted beside it and may change. Raises
    ``StudyError`` for another recipe, for a folder that holds something else, and where nothing can be written.
    """

    def __init__(self, folder: str | os.PathLike[str], schema: str, recipe: Mapping[str, Any], **about: Any) -> None:
        self.folder = Path(folder)
        require_table_writer()
        self._made = not self.folder.exists()
        self._begun = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            strange = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise StudyError(f"The folder '{self.folder}' cannot be made: {error.strerror}.") from error
        if (self.folder / MANIFEST).exists():
            _require_same(read_manifest(self.folder), schema, recipe, self.folder)
        elif strange:
            raise StudyError(f"'{self.folder}' holds other files and no {MANIFEST}; name a new folder.")
        else:
            content = {"schema": schema, "recipe": dict(recipe), **about, "versions": versions()}
            write_json(self.folder / MANIFEST, content)
            self._begun = True
        self.before = Lines(self.folder / BEFORE)
        try:
            self.cases = Lines(self.folder / CASES)
        except BaseException:
            self.before.close()
            raise

    def write_table(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write flat ``rows`` as Parquet, whole or not at all; a column that a row lacks is null there."""
        import pyarrow
        import pyarrow.parquet

        rows = list(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        table = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
        with whole_file(self.folder / TABLE, StudyError) as temporary:
            pyarrow.parquet.write_table(table, temporary)

    def close(self) -> None:
        self.before.close()
        self.cases.close()

    def forget(self) -> None:
        """Leave nothing of a study that was begun just now and cannot be done; one that was gone on with stays."""
        self.close()
        if not self._begun:
            return
        for name in (MANIFEST, BEFORE, CASES):
            (self.folder / name).unlink(missing_ok=True)
        if self._made:
            with contextlib.suppress(OSError):  # somebody else put something there
                self.folder.rmdir()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.close()
        if kind is None or not issubclass(kind, NeuronwiseError) or self.cases.rows:
            return
        if not self.before.rows or issubclass(kind, NothingToStudy):
            self.forget()


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a study's folder; raises ``StudyError`` where there is none, or a damaged one."""
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"schema", "recipe"} <= content.keys():
            raise ValueError("no manifest")
    except FileNotFoundError as error:
        raise StudyError(f"'{folder}' is no study's folder: it has no {MANIFEST}.") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"'{path}' is damaged; name a new folder.") from error
    return content


def read_cases(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The finished cases of a study's folder, which may still be written to by another process."""
    path = Path(folder) / CASES
    try:
        return parsed(path.read_bytes(), path)[0]
    except OSError as error:
        raise StudyError(f"'{path}' cannot be read: {error.strerror}.") from error


def read_before(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """What a study's folder found before anything was changed, finished or not."""
    path = Path(folder) / BEFORE
    try:
        return parsed(path.read_bytes(), path)[0]
    except OSError as error:
        raise StudyError(f"'{path}' cannot be read: {error.strerror}.") from error


def require_table_writer() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise StudyError("The table of a study needs pyarrow: pip install 'neuronwise[study]'.") from error


def _require_same(manifest: Mapping[str, Any], schema: str, recipe: Mapping[str, Any], folder: Path) -> None:
    if manifest["schema"] != schema:
        raise StudyError(f"'{folder}' holds {manifest['schema']!r}; this writes {schema!r}: name a new folder.")
    old, new = manifest["recipe"], json.loads(json.dumps(dict(recipe)))
    different = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    if different:
        name = different[0]
        raise StudyError(
            f"'{folder}' was begun with {name}={old.get(name)!r}, not {new.get(name)!r}; go on with the same recipe or "
            "name a new folder."
        )
