"""Plain texts, one after another: from a file, a folder, a dataset or any iterable."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from neuronwise.errors import DataError
from neuronwise.files import as_path, from_json, ordinary

KINDS = (".txt", ".md", ".jsonl")


def read_texts(source: str | os.PathLike[str] | Iterable[object], field: str = "text") -> Iterator[str]:
    """All texts that are not blank, in a fixed order, each read when it is asked for.

    ``source`` is a text file (one text for each paragraph), a ``.jsonl`` file (``field`` of each line), a folder of
    such files (in order of their names, subfolders included), or an iterable of strings or of rows with ``field``, such
    as a dataset of the datasets library. Raises ``DataError`` naming the file and line that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        found = (text for file in text_files(source) for text in _of_file(file, field))
    else:
        found = (_of_row(row, field, f"row {number}") for number, row in enumerate(source))
    return (text for text in found if text.strip())


def text_files(source: str | os.PathLike[str]) -> list[Path]:
    """The file that a path names, or all of a folder in order; raises ``DataError`` for what is no text by its name."""
    path = as_path(source, DataError)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in KINDS and file.is_file())
        if not files:
            raise DataError(f"The folder '{path}' has no text: no file ends in {', '.join(KINDS)}.")
        return files
    if not path.exists():
        raise DataError(f"There is no file or folder of text '{path}'.")
    if path.suffix not in KINDS:
        raise DataError(f"'{path}' is not a text by its name; name a file that ends in {', '.join(KINDS)}.")
    return [path]


def read_lines(file: str | os.PathLike[str]) -> dict[str, str]:
    """The texts of a file that has one a line, by the numbers of their lines; blank lines are left out.

    Raises ``DataError`` for a file that cannot be read, or holds none.
    """
    path = Path(file)
    with _reading(path), path.open(encoding="utf-8-sig") as lines:
        found = {str(number): line.rstrip("\n") for number, line in enumerate(lines, 1) if line.strip()}
    if not found:
        raise DataError(f"'{path}' has no text; write one a line.")
    return found


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        ordinary(path)
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"'{path}' is not text in UTF-8.") from error
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def _of_file(path: Path, field: str) -> Iterator[str]:
    with _reading(path), path.open(encoding="utf-8") as lines:
        yield from _rows(path, lines, field) if path.suffix == ".jsonl" else _paragraphs(lines)


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    held: list[str] = []
    for line in lines:
        if line.strip():
            held.append(line)
        elif held:
            yield "".join(held).strip("\n")
            held = []
    if held:
        yield "".join(held).strip("\n")


def _rows(path: Path, lines: Iterable[str], field: str) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = from_json(line)
        except ValueError as error:
            raise DataError(f"Line {number} of '{path}' is not JSON.") from error
        yield _of_row(row, field, f"line {number} of '{path}'")


def _of_row(row: object, field: str, where: str) -> str:
    text = row.get(field) if isinstance(row, Mapping) else row
    if not isinstance(text, str):
        raise DataError(f"There is no text in {where}: it needs the field {field!r}, a string.")
    return text


def openings() -> tuple[str, ...]:
    """64 short, neutral beginnings of English texts (this project's own list)."""
    return tuple((Path(__file__).parent / "openings.txt").read_text(encoding="utf-8").splitlines())
