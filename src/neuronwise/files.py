"""Files and folders that are written whole or not at all, JSON lines that only grow, and the versions at work."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from neuronwise._version import __version__
from neuronwise.errors import NeuronwiseError, StudyError


def versions() -> dict[str, str]:
    """The versions that a result depends on: neuronwise, torch, transformers and Python."""
    libraries = {name: metadata.version(name) for name in ("torch", "transformers")}
    return {"neuronwise": __version__, **libraries, "python": platform.python_version()}


def sha256(path: Path) -> str:
    """The SHA-256 sum of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike[str], error: Callable[[str], NeuronwiseError] = NeuronwiseError
) -> Iterator[Path]:
    """Yield a neighboring temporary path to write to; it takes the place of ``path`` when the body ends well.

    >>> with whole_file("heat.png") as temporary:
    ...     image.save(temporary, format="PNG")

    Raises ``error`` with a sentence where the disk refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as problem:
        raise error(f"'{path}' cannot be written: {problem.strerror or problem}.") from problem
    finally:
        temporary.unlink(missing_ok=True)


def write_text(
    path: str | os.PathLike[str], text: str, error: Callable[[str], NeuronwiseError] = NeuronwiseError
) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    with whole_file(path, error) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(
    path: str | os.PathLike[str], content: object, error: Callable[[str], NeuronwiseError] = NeuronwiseError
) -> None:
    """Write JSON, whole or not at all; raises ``ValueError`` for numbers that are not finite."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), error)


def require_free(directory: str | os.PathLike[str], error: Callable[[str], NeuronwiseError] = NeuronwiseError) -> Path:
    """The folder that ``directory`` names, links followed; raises ``error`` unless it is new or empty."""
    folder = Path(directory).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise error(f"'{directory}' is there already; name a new folder.")
    return folder


def write_folder(
    directory: str | os.PathLike[str],
    write: Callable[[Path], None],
    error: Callable[[str], NeuronwiseError] = NeuronwiseError,
) -> None:
    """Fill a folder through a neighboring temporary one, so that no half-written one is ever seen."""
    folder = require_free(directory, error)
    made = next((path for path in reversed((folder, *folder.parents)) if not path.exists()), None)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    done = False
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        if folder.exists():  # the folder itself stays: it may be a mount, or where someone is
            for part in temporary.iterdir():
                part.rename(folder / part.name)
        else:
            temporary.rename(folder)
        done = True
    except OSError as problem:
        raise error(f"'{directory}' cannot be written: {problem.strerror or problem}.") from problem
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not done and made is not None:
            for parent in (folder, *folder.parents):
                if parent.is_dir() and not any(parent.iterdir()) and parent.is_relative_to(made):
                    parent.rmdir()  # made by this call alone


class Lines:
    """JSON lines: the rows of ``path``; ``append`` adds one for good. Opened by one process at a time.

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

    def append(self, row: Mapping[str, object]) -> None:
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

    def __exit__(self, *_: object) -> None:
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
