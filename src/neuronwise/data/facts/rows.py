"""Rows of JSON and CSV files, each with its place, so that whatever is wrong with one can be named."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from neuronwise.errors import DataError, reason
from neuronwise.files import from_json, read_bytes

ENDINGS = (".json", ".jsonl", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz")


@dataclass(frozen=True)
class Problem:
    """What could not be read, and where: a record that is left out, or (``kept``) a part of one that is not."""

    where: str
    reason: str
    kept: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class Row:
    """One record as its file has it; ``number`` counts lines or records from 1, ``folder`` holds its file."""

    where: str
    number: int
    value: object
    file: str
    folder: Path | None = None


@dataclass(frozen=True)
class Rows:
    """All rows of a source, what of it is not JSON, and a SHA-256 of what was read."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    digest: str


def read_rows(source: str | os.PathLike[str]) -> Rows:
    """Read a file of JSON, JSON lines or CSV (also gzipped), or all such files below a folder, in order of their names.

    A JSON file holds a list of records, or an object with one list of records, or one record. The first row of a CSV
    file names the fields; an empty cell is no field, a cell that is a JSON list is that list. The digest is that of
    the file's bytes, as ``sha256sum`` prints it; for a folder, of its files' names and digests. Raises ``DataError``
    for a source that does not exist, is another kind of file, damaged as a whole or empty; broken lines and records
    become problems.
    """
    path = Path(source)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise DataError(f"There is no file or folder '{path}' of facts.")
    if not path.name.lower().endswith(ENDINGS):
        raise DataError(f"'{path}' is not a file of facts; it should end in {', '.join(ENDINGS)}.")
    data = _bytes(path)
    return _sorted(list(_rows(path, path.name, data)), hashlib.sha256(data).hexdigest())


def _sorted(found: list[Row | Problem], digest: str) -> Rows:
    rows = tuple(one for one in found if isinstance(one, Row))
    return Rows(rows, tuple(one for one in found if isinstance(one, Problem)), digest)


def _read_folder(folder: Path) -> Rows:
    paths = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(ENDINGS) and path.is_file())
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not paths:
        raise DataError(f"The folder '{folder}' has no file that ends in {', '.join(ENDINGS)}.")
    found: list[Row | Problem] = []
    state = hashlib.sha256()
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            data = _bytes(path)
            state.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode("utf-8", "surrogateescape"))
            found += _rows(path, name, data)
        except DataError as error:  # one damaged file does not hide the others
            found.append(Problem(name, str(error)))
    return _sorted(found, state.hexdigest())


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {reason(error)}.") from error


def _rows(path: Path, name: str, data: bytes) -> Iterator[Row | Problem]:
    if path.name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"'{path}' is damaged or truncated, or not gzipped: {reason(error)}.") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise DataError(f"'{path}' is empty.")
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        return _table(path, name, data)
    if ".jsonl" in path.name.lower() or _first_line_is_record(data):
        return _lines(path, name, data)
    return _listed(path, name, _text(path, data))


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not text in UTF-8 (byte {error.start}).") from error


def _table(path: Path, name: str, data: bytes) -> Iterator[Row | Problem]:
    text = _text(path, data)
    first = text.partition("\n")[0]
    between = max(",;\t", key=first.count)  # where a comma is in numbers, spreadsheets put a semicolon
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=between, strict=True)
    fields: list[str] = []
    while True:
        line = rows.line_num + 1
        where = f"{name}, line {line}"
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(where, f"it is not CSV ({error}).")
            return
        if not fields:
            fields = [cell.strip() for cell in cells]
            if len(set(fields)) < len(fields):
                raise DataError(f"'{path}' has two columns of one name.")
        elif len(cells) > len(fields):
            yield Problem(where, f"it has {len(cells)} cells for {len(fields)} columns.")
        elif any(cells):
            kept = {field: _cell(cell) for field, cell in zip(fields, cells, strict=False) if cell.strip()}
            yield Row(where, line, kept, name, path.parent)


def _cell(cell: str) -> object:
    try:
        return from_json(cell) if cell.startswith("[") else cell
    except ValueError:
        return cell


def _first_line_is_record(data: bytes) -> bool:
    """JSON lines often end in .json: then the first line is an object, and something follows it."""
    first, _, rest = data.strip().partition(b"\n")
    try:
        return bool(rest.strip()) and isinstance(from_json(first), dict)
    except ValueError:
        return False


def _lines(path: Path, name: str, data: bytes) -> Iterator[Row | Problem]:
    # Only "\n" ends a line: U+2028 and its kin are allowed inside JSON's strings.
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            yield Row(where, number, from_json(line.decode("utf-8")), name, path.parent)
        except UnicodeDecodeError:
            yield Problem(where, "it is not text in UTF-8.")
        except ValueError as error:
            yield Problem(where, f"it is not JSON ({_why(error)}).")


def _listed(path: Path, name: str, text: str) -> Iterator[Row | Problem]:
    try:
        value = from_json(text)
    except ValueError as error:
        if text.lstrip().startswith("["):
            return _up_to_break(path, name, text)
        raise DataError(f"'{path}' is not JSON ({_why(error)}).") from error
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
        value = lists[0] if len(lists) == 1 and len(value) <= 2 else [value]
    if not isinstance(value, list):
        raise DataError(f"'{path}' does not hold a list of records.")
    if not value:
        raise DataError(f"'{path}' holds an empty list.")
    return (Row(f"{name}, record {n}", n, one, name, path.parent) for n, one in enumerate(value, 1))


def _up_to_break(path: Path, name: str, text: str) -> Iterator[Row | Problem]:
    """The records of a list that is broken somewhere: all before the break, which is named with its line."""
    decoder, number = json.JSONDecoder(), 0
    place = text.index("[") + 1
    while True:
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, getattr(error, "pos", place)) + 1
            what = f"the list is broken here ({_why(error)}); nothing after record {number} was read."
            yield Problem(f"{name}, line {line}", what)
            return
        number += 1
        yield Row(f"{name}, record {number}", number, value, name, path.parent)


def _why(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):  # its own line number counts from where the decoder began
        return f"{error.msg.removesuffix(' at')} at column {error.colno}"
    return str(error).rstrip(".")
