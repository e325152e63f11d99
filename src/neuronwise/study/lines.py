"""A file of JSON lines that only grows: whole lines or none, whatever ends the process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronwise.errors import StudyError


class Lines:
    """The rows of ``path``; ``append`` adds one for good. Opened by one process at a time.

    A last line that a kill left torn is cut off at opening. Raises ``StudyError`` for a file that is damaged elsewhere,
    in use by another process, or not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StudyError(f"'{path}' cannot be written: {error.strerror}.") from error
        try:
            _lock(self._file, path)
            content = path.read_bytes()
            self.rows, size = parsed(content, path)
            if size < len(content):
                os.ftruncate(self._file, size)
        except BaseException:
            self.close()
            raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row and wait until the disk has it; a line that does not fit is taken back."""
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            raise StudyError(
                f"'{self.path}' cannot be written: {error.strerror}. What is finished stays; make room and run the "
                "same command again."
            ) from error
        except BaseException:
            os.ftruncate(self._file, size)
            raise
        self.rows.append(dict(row))

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def parsed(content: bytes, path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a file and its length in bytes without a torn last line."""
    rows: list[dict[str, Any]] = []
    size = 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a row is an object")
        except ValueError as error:
            if number == len(lines) - 1:
                break  # a line end that reached the disk before its line
            raise StudyError(
                f"Line {number} of '{path}' is damaged; put the file right or name a new folder."
            ) from error
        rows.append(row)
        size += len(line) + 1
    return rows, size


def _lock(file: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # a system without it: the user keeps runs apart
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StudyError(f"'{path}' is being written by another run; wait for it or name another folder.") from error
