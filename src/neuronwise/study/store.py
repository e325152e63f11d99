"""The folder of a study: what was to be done (manifest), what is done (lines), and the table of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypedDict, TypeVar

from neuronwise.errors import NeuronwiseError, NothingToStudy, StudyError, reason
from neuronwise.files import (
    Lines,
    from_json,
    read_bytes,
    read_lines,
    versions,
    whole_file,
    write_json,
)
from neuronwise.files.kinds import misfits
from neuronwise.study.beside import Beside
from neuronwise.study.cases import CaseFile, Cases, CasesInMemory
from neuronwise.study.notes import Notes, Row

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

MANIFEST, BEFORE, CASES, TABLE = "manifest.json", "before.jsonl", "cases.jsonl", "cases.parquet"
GROUP = 1_000  # rows of a table that are held at once, and written together


class NotesFile(Notes):
    """Notes in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)
        super().__init__(_fitting(self._lines.rows, path))
        self._beside: Beside | None = None
        self._first = 0.0

    def share(self, beside: Beside, first: float) -> None:
        """Take in what shards beside have noted, and begin with questions at this part of all."""
        self._beside, self._first = beside, first

    def look(self, keys: Sequence[str]) -> None:
        """Take in what shards beside have noted of some keys."""
        rows = [] if self._beside is None else self._beside.new(keys)
        new = {(row["part"], row["key"]): row for row in rows if not self.holds(row["part"], row["key"])}
        if new:
            self.extend(_fitting([*new.values()], self._lines.path))

    def dealt(self, keys: Sequence[str]) -> Sequence[str]:
        """The keys from this shard's part on, then those before it."""
        first = int(self._first * len(keys))
        return [*keys[first:], *keys[:first]]

    def extend(self, rows: Sequence[Row]) -> None:
        """Add rows, and wait until the disk has them."""
        self._lines.extend(rows)
        super().extend(rows)

    def close(self) -> None:
        """Let other processes write it."""
        self._lines.close()


class Store:
    """``cases`` holds one row for each finished case, ``before`` what was found before anything was changed.

    Without a folder both are kept in memory. A folder resumes where it stopped if ``recipe`` (plain JSON values) is the
    one that it was begun with; ``about`` is noted beside it and may change. Raises ``StudyError`` for another recipe,
    for a folder that holds something else, and where nothing can be written.
    """

    before: Notes
    cases: Cases

    def __init__(
        self, folder: str | os.PathLike[str] | None, schema: str, recipe: Mapping[str, object], **about: object
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self.manifest: Row = {"schema": schema, "recipe": dict(recipe), "versions": versions(), **about}
        self._made = self._begun = False
        self._files = contextlib.ExitStack()
        if self.folder is None:
            self.before, self.cases = Notes(), CasesInMemory()
            return
        require_table_writer()
        self._open(self.folder)
        with contextlib.ExitStack() as opened:
            self.before = NotesFile(self.folder / BEFORE)
            opened.callback(self.before.close)
            if isinstance(shard := about.get("shard"), str):
                number, _, of = shard.partition("/")
                self.before.share(Beside(self.folder, self.manifest, BEFORE), (int(number) - 1) / int(of))
            self.cases = CaseFile(self.folder / CASES, write=True)
            opened.callback(self.cases.close)
            self._files = opened.pop_all()

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
            require_same(begun, self.manifest, folder)
            one, other = (_part(manifest) for manifest in (begun, self.manifest))
            if one != other:
                raise StudyError(f"'{folder}' holds {one} of this study, not {other}; name a new folder.")
            self.manifest = begun
        elif strange:
            raise StudyError(f"'{folder}' holds other files and no {MANIFEST}; name a new folder.")
        else:
            write_json(folder / MANIFEST, self.manifest)
            self._begun = True

    def write_table(self, rows: Callable[[], Iterable[Row]]) -> None:
        """Write flat rows as Parquet, whole or not at all; a column that a row lacks is null there.

        ``rows()`` gives them, and is called twice: no more than ``GROUP`` of them are held at once.
        """
        if self.folder is None:
            return
        import pyarrow.parquet

        schema = _schema(rows())
        with whole_file(self.folder / TABLE, StudyError) as temporary, temporary.open("wb") as file:
            # a name would be taken for an address where it holds a colon
            with pyarrow.parquet.ParquetWriter(file, schema) as writer:
                for group in groups(rows(), GROUP):
                    whole = [{name: row.get(name) for name in schema.names} for row in group]
                    writer.write_table(pyarrow.Table.from_pylist(whole, schema))

    def close(self) -> None:
        """Close the files, so that another process may open them."""
        self._files.close()

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
        if kind is None or not issubclass(kind, NeuronwiseError) or len(self.cases):
            return
        if not self.before.rows or issubclass(kind, NothingToStudy):
            self.forget()


def read_manifest(folder: str | os.PathLike[str]) -> Row:
    """The manifest of a study's folder; raises ``StudyError`` where there is none, or a damaged one."""
    path = Path(folder) / MANIFEST
    try:
        content = from_json(read_bytes(path), finite=True)
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


class _Note(TypedDict, total=False):
    """A line of ``before.jsonl``."""

    part: Required[str]
    key: str


class _Named(TypedDict):
    """A line of ``before.jsonl`` that has a key."""

    value: object


class _Listed(TypedDict, total=False):
    """Cases by their ids, and why others are left out."""

    ids: Required[list[str]]
    skipped: dict[str, str]
    unread: dict[str, str]


class _Listing(TypedDict):
    """A line of ``before.jsonl`` of the part "study"."""

    key: str
    value: _Listed


def read_cases(folder: str | os.PathLike[str]) -> list[Row]:
    """The finished cases of a study's folder, which another process may still be writing to."""
    cases = open_cases(folder)
    return list(cases.read(cases))


def open_cases(folder: str | os.PathLike[str]) -> CaseFile:
    """As ``read_cases``, left on the disk."""
    path = Path(folder) / CASES
    with _readable(path):
        return CaseFile(path)


def read_before(folder: str | os.PathLike[str]) -> Notes:
    """What a study's folder found before anything was changed, finished or not."""
    path = Path(folder) / BEFORE
    with _readable(path):
        return Notes(_fitting([row for row, _, _ in read_lines(path)], path))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StudyError(f"'{path}' cannot be read: {reason(error)}.") from error


def _fitting(rows: list[Row], path: Path) -> list[Row]:
    """The notes; raises ``StudyError`` for a row that is none."""
    for number, row in enumerate(rows, 1):
        if wrong := misfits(row, _Note) or misfits(
            row, _Listing if row["part"] == "study" else _Named if "key" in row else _Note
        ):
            raise StudyError(f"Line {number} of '{path}' is damaged ({wrong}); name a new folder.")
    return rows


def _part(manifest: Row) -> str:
    return f"shard {manifest['shard']}" if "shard" in manifest else "the whole"


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Several together, no more than ``size``."""
    listed = iter(items)
    while group := list(islice(listed, size)):
        yield group


def _schema(rows: Iterable[Row]) -> pyarrow.Schema:
    """The columns of all rows, each of the kind that holds all its values."""
    import pyarrow

    schema = pyarrow.schema([])
    for group in groups(rows, GROUP):
        names = dict.fromkeys(name for row in group for name in row)
        found = pyarrow.Table.from_pylist([{name: row.get(name) for name in names} for row in group]).schema
        schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
    return schema


def require_table_writer() -> None:
    """Raise ``StudyError`` where the table of a study could not be written at its end."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise StudyError("The table of a study needs pyarrow: pip install 'neuronwise[study]'.") from error


def require_same(begun: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise ``StudyError`` unless a folder's manifest is of the wanted schema and recipe."""
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
