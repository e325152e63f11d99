"""The folder of a study: what was to be done (manifest), what is done (lines), and the table of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypeAlias, TypedDict

from neuronwise.errors import NeuronwiseError, NothingToStudy, StudyError, reason
from neuronwise.files import Lines, from_json, parsed, read_bytes, versions, whole_file, write_json
from neuronwise.registry.arguments import misfits

MANIFEST, BEFORE, CASES, TABLE = "manifest.json", "before.jsonl", "cases.jsonl", "cases.parquet"

Row: TypeAlias = dict[str, Any]
"""A JSON object: one line of a file, or one row of a table (column → number, text, truth value, None, or a list)."""


class Journal(Protocol):
    """Rows that only grow."""

    rows: list[Row]

    def append(self, row: Mapping[str, object]) -> None:
        """Add one row for good."""


class Memory:
    """A journal in memory alone."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def append(self, row: Mapping[str, object]) -> None:
        """Add one row."""
        self.rows.append(dict(row))


class Store:
    """``cases`` holds one row for each finished case, ``before`` what was found before anything was changed.

    Without a folder both are kept in memory. A folder resumes where it stopped if ``recipe`` (plain JSON values) is the
    one that it was begun with; ``about`` is noted beside it and may change. Raises ``StudyError`` for another recipe,
    for a folder that holds something else, and where nothing can be written.
    """

    before: Journal
    cases: Journal

    def __init__(
        self, folder: str | os.PathLike[str] | None, schema: str, recipe: Mapping[str, object], **about: object
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.manifest: Row = {"schema": schema, "recipe": dict(recipe), **about, "versions": versions()}
        self._made = self._begun = False
        self._files: list[Lines] = []
        if self.folder is None:
            self.before, self.cases = Memory(), Memory()
            return
        require_table_writer()
        self._open(self.folder)
        try:
            for name in (BEFORE, CASES):
                self._files.append(Lines(self.folder / name))
                _fitting(self._files[-1].rows, self.folder / name)
            self._files[1].rows = once(self._files[1].rows, self.folder / CASES)
        except BaseException:
            self.close()
            raise
        self.before, self.cases = self._files

    def _open(self, folder: Path) -> None:
        """Make the folder and its manifest, or require that it was begun with the same recipe."""
        self._made = not folder.exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            strange = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise StudyError(f"The folder '{folder}' cannot be made: {reason(error)}.") from error
        if (folder / MANIFEST).exists():
            begun = read_manifest(folder)
            _require_same(begun, self.manifest, folder)
            self.manifest = begun
        elif strange:
            raise StudyError(f"'{folder}' holds other files and no {MANIFEST}; name a new folder.")
        else:
            write_json(folder / MANIFEST, self.manifest)
            self._begun = True

    def write_table(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write flat ``rows`` as Parquet, whole or not at all; a column that a row lacks is null there."""
        if self.folder is None:
            return
        import pyarrow
        import pyarrow.parquet

        rows = list(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        table = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])
        with whole_file(self.folder / TABLE, StudyError) as temporary, temporary.open("wb") as file:
            pyarrow.parquet.write_table(table, file)  # a name would be taken for an address where it holds a colon

    def close(self) -> None:
        """Close the files, so that another process may open them."""
        for file in self._files:
            file.close()

    def forget(self) -> None:
        """Leave nothing of a study that was begun just now and cannot be done; a resumed one stays."""
        self.close()
        if not self._begun or self.folder is None:
            return
        for name in (MANIFEST, BEFORE, CASES):
            (self.folder / name).unlink(missing_ok=True)
        if self._made:
            with contextlib.suppress(OSError):  # somebody else put something there
                self.folder.rmdir()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None or not issubclass(kind, NeuronwiseError) or self.cases.rows:
            return
        if not self.before.rows or issubclass(kind, NothingToStudy):
            self.forget()


def read_manifest(folder: str | os.PathLike[str]) -> Row:
    """The manifest of a study's folder; raises ``StudyError`` where there is none, or a damaged one."""
    path = Path(folder) / MANIFEST
    try:
        content = from_json(read_bytes(path))
        if wrong := misfits(content, _Manifest):
            raise ValueError(wrong)
    except FileNotFoundError as error:
        raise StudyError(f"'{folder}' holds no study and no evaluation: it has no {MANIFEST}.") from error
    except (OSError, ValueError) as error:
        raise StudyError(f"'{path}' is damaged ({reason(error)}); name a new folder.") from error
    return content


class _Manifest(TypedDict):
    """``manifest.json``, as far as every kind of study has it."""

    schema: str
    recipe: dict[str, Any]
    versions: dict[str, str]


class _Case(TypedDict):
    """A line of ``cases.jsonl``, as far as every kind of study has it."""

    id: str
    status: NotRequired[str]


class _Note(TypedDict, total=False):
    """A line of ``before.jsonl``."""

    part: str
    key: str


def read_cases(folder: str | os.PathLike[str]) -> list[Row]:
    """The finished cases of a study's folder, which another process may still be writing to."""
    path = Path(folder) / CASES
    return once(_lines(path), path)


def once(rows: Sequence[Row], path: Path) -> list[Row]:
    """Each case once, however often its line was copied; raises ``StudyError`` for a case with two results."""
    found: dict[str, Row] = {}
    for row in rows:
        if found.setdefault(str(row.get("id")), row) != row:
            raise StudyError(
                f"'{path}' holds two results of the case {row.get('id')!r}; delete the line that is wrong."
            )
    return list(found.values())


def read_before(folder: str | os.PathLike[str]) -> list[Row]:
    """What a study's folder found before anything was changed, finished or not."""
    return _lines(Path(folder) / BEFORE)


def _lines(path: Path) -> list[Row]:
    try:
        return _fitting(parsed(read_bytes(path), path)[0], path)
    except OSError as error:
        raise StudyError(f"'{path}' cannot be read: {reason(error)}.") from error


def _fitting(rows: list[Row], path: Path) -> list[Row]:
    """The rows; raises ``StudyError`` for one that is none of a study."""
    form = _Case if path.name == CASES else _Note
    for number, row in enumerate(rows, 1):
        if wrong := misfits(row, form):
            raise StudyError(f"Line {number} of '{path}' is damaged ({wrong}); name a new folder.")
    return rows


def require_table_writer() -> None:
    """Raise ``StudyError`` where the table of a study could not be written at its end."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise StudyError("The table of a study needs pyarrow: pip install 'neuronwise[study]'.") from error


def _require_same(begun: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    if begun["schema"] != wanted["schema"]:
        raise StudyError(f"'{folder}' holds {begun['schema']!r}; this writes {wanted['schema']!r}: name a new folder.")
    old, new = begun["recipe"], json.loads(json.dumps(wanted["recipe"]))
    different = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    if different:
        name = different[0]
        raise StudyError(
            f"'{folder}' was begun with {name}={old.get(name)!r}, not {new.get(name)!r}; resume with the same recipe "
            "or name a new folder."
        )
