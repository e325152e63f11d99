"""JSON lines that only grow, opened by one process at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronwise.errors import StudyError
from neuronwise.files.locks import Lock, Locked
from neuronwise.files.reading import from_json
from neuronwise.files.writing import Raises, writing


class Lines:
    """JSON lines: the rows of ``path``; ``append`` adds one for good. Opened by one process at a time.

    A last line that was cut off when a process was killed is removed at opening. Raises ``error`` for a file that is
    damaged elsewhere, in use by another process, or not writable.
    """

    def __init__(self, path: Path, error: Raises = StudyError) -> None:
        self.path, self._error = path, error
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
            content = path.read_bytes()
            self.rows, size = parsed(content, path, error)
            if size < len(content):
                os.ftruncate(self._file, size)
        except BaseException:
            self.close()
            raise

    def append(self, row: Mapping[str, object]) -> None:
        """Write one row and wait until the disk has it; a line that does not fit is taken back."""
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except BaseException as problem:
            os.ftruncate(self._file, size)
            if not isinstance(problem, OSError):
                raise
            raise self._error(
                f"'{self.path}' cannot be written: {problem.strerror}. What is finished stays; make room and run the "
                "same command again."
            ) from problem
        self.rows.append(dict(row))

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


def parsed(content: bytes, path: Path, error: Raises = StudyError) -> tuple[list[dict[str, Any]], int]:
    """The rows of JSON lines, and the length in bytes without a torn last line."""
    rows: list[dict[str, Any]] = []
    size = 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = from_json(line, finite=True)
            if not isinstance(row, dict):
                raise ValueError("a row is an object")
        except ValueError as problem:
            if number == len(lines) - 1:
                break  # a line end that reached the disk before its line
            raise error(f"Line {number} of '{path}' is damaged; repair the file or name a new folder.") from problem
        rows.append(row)
        size += len(line) + 1
    return rows, size
