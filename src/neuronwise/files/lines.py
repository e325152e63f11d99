"""JSON lines that only grow, opened by one process at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from neuronwise.errors import StudyError
from neuronwise.files.locks import Lock, Locked
from neuronwise.files.reading import from_json, ordinary
from neuronwise.files.writing import Raises, writing

Take: TypeAlias = "Callable[[dict[str, Any], int], object]"  # a row, and where its line begins (bytes)


class Lines:
    """JSON lines: the ``rows`` of ``path``; ``append`` adds one for good. Opened by one process at a time.

    With ``take`` no row is kept in memory: it is called with each that is there, and with each that is added. A last
    line that was cut off when a process was killed is removed at opening. Raises ``error`` for a file that is damaged
    elsewhere, in use by another process, or not writable.
    """

    def __init__(self, path: Path, error: Raises = StudyError, take: Take | None = None) -> None:
        self.path, self._error = path, error
        self.rows: list[dict[str, Any]] = []
        self._take: Take = take or (lambda row, _: self.rows.append(row))
        self._lock: Lock | None = None
        with writing(path, error):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            try:
                self._lock = Lock(path)
            except Locked as held:
                raise error(
                    f"'{path}' is being written by another run; wait for it or name another folder.{held.hint}"
                ) from held
            size = 0
            for row, start, end in read_lines(path, error):
                self._take(row, start)
                size = end
            if size < os.fstat(self._file).st_size:
                os.ftruncate(self._file, size)
        except BaseException:
            self.close()
            raise

    def append(self, row: Mapping[str, object]) -> None:
        """Write one row and wait until the disk has it; a line that does not fit is taken back."""
        self.extend([row])

    def extend(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Write rows together and wait once until the disk has them all; where they do not fit, none stays."""
        rows = list(rows)
        lines = list(map(line_of, rows))
        size = os.fstat(self._file).st_size
        try:
            content = b"".join(lines)
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
            os.fsync(self._file)
        except BaseException as problem:
            os.ftruncate(self._file, size)
            if not isinstance(problem, OSError):
                raise
            raise self._error(
                f"'{self.path}' cannot be written: {problem.strerror}. What is finished stays; make room and run the "
                "same command again."
            ) from problem
        for row, line in zip(rows, lines, strict=True):
            self._take(dict(row), size)
            size += len(line)

    def close(self) -> None:
        """Close the file and let go of its lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def line_of(row: Mapping[str, object]) -> bytes:
    """A row as a line in UTF-8; half a surrogate pair is written as its escape. Raises ``ValueError`` for NaN."""
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="backslashreplace")


def read_lines(path: Path, error: Raises = StudyError) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Each row of JSON lines with where its line begins and ends (bytes); a torn last line is left out.

    Raises ``error`` for a file that is damaged elsewhere.
    """
    damage: tuple[int, ValueError] | None = None
    end = 0
    with ordinary(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if damage is not None and line.endswith(b"\n"):
                raise error(
                    f"Line {damage[0]} of '{path}' is damaged; repair the file or name a new folder."
                ) from damage[1]
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it is torn")
                row = from_json(line, finite=True)
                if not isinstance(row, dict):
                    raise ValueError("a row is an object")
            except ValueError as problem:
                damage = number, problem  # no harm in the last line: its end may have reached the disk before it
                continue
            start, end = end, end + len(line)
            yield row, start, end
