"""Files and folders that are written whole or not at all, JSON lines that only grow, and the versions at work."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from neuronwise._version import __version__
from neuronwise.arguments import misfits
from neuronwise.errors import NeuronwiseError, StudyError, reason
from neuronwise.locks import Lock, Locked

PathLike: TypeAlias = "str | os.PathLike[str]"
Raises: TypeAlias = "Callable[[str], NeuronwiseError]"  # the error class that takes the sentence


def versions() -> dict[str, str]:
    """The versions that a result depends on: neuronwise, torch, transformers and Python."""
    libraries = {name: metadata.version(name) for name in ("torch", "transformers")}
    return {"neuronwise": __version__, **libraries, "python": platform.python_version()}


_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")


def shareable(value: Any) -> Any:
    """A JSON value without what others should not see: folders of this machine, the user's home, tokens of the hub.

    Of an absolute path its last part is left: "/home/me/models/tiny" is "tiny".
    """
    if isinstance(value, Mapping):
        return {key: shareable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [shareable(one) for one in value]
    if not isinstance(value, str):
        return value
    text = _TOKEN.sub("hf_…", value)
    if "\n" not in text and len(text) < 4096 and Path(text).is_absolute() and len(Path(text).parts) > 2:
        return Path(text).name
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


def sha256(path: Path) -> str:
    """The SHA-256 sum of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def _writing(path: PathLike, error: Raises) -> Iterator[None]:
    """What the file system refuses in the body, as ``error`` with one sentence; safetensors' own error included."""
    try:
        yield
    except Exception as problem:
        if not isinstance(problem, OSError) and type(problem).__name__ != "SafetensorError":
            raise
        raise error(f"'{os.fspath(path)}' cannot be written: {reason(problem)}.") from problem


@contextlib.contextmanager
def whole_file(path: PathLike, error: Raises = NeuronwiseError) -> Iterator[Path]:
    """Yield a neighboring temporary path to write to; it takes the place of ``path`` when the body ends well.

    >>> with whole_file("heat.png") as temporary:
    ...     image.save(temporary, format="PNG")

    The folder has to exist (``make_folder``). Raises ``error`` with a sentence where the disk refuses.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        with _writing(path, error):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A hidden name beside ``path`` that no other process or thread uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")


def write_bytes(path: PathLike, content: bytes, error: Raises = NeuronwiseError) -> None:
    """Write a file whole or not at all."""
    with whole_file(path, error) as temporary:
        temporary.write_bytes(content)


def write_text(path: PathLike, text: str, error: Raises = NeuronwiseError) -> None:
    """Write a text file in UTF-8, whole or not at all; half a surrogate pair is written as its escape, as in JSON."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"), error)


def write_json(path: PathLike, content: object, error: Raises = NeuronwiseError) -> None:
    """Write JSON, whole or not at all; raises ``ValueError`` for numbers that are not finite."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False), error)


def from_json(text: str | bytes, finite: bool = False) -> Any:
    """The value of a JSON text; raises ``ValueError`` for anything else, also for one that is nested too deeply.

    ``finite``: NaN and infinity, which JSON lacks and Python's reader takes, are refused.
    """
    try:
        return json.loads(text, parse_constant=_refuse) if finite else json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_bytes(path: PathLike) -> bytes:
    """What a file holds; raises ``OSError`` for what is no ordinary file: reading a pipe might never end."""
    path = Path(path)
    require_ordinary(path)
    return path.read_bytes()


def require_ordinary(path: Path) -> None:
    """Raise ``OSError`` for a path that is there and is neither a file nor a folder, but a pipe or a device."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no ordinary file")


def read_json(path: PathLike, what: str, error: Raises = NeuronwiseError, finite: bool = False) -> Any:
    """What a JSON file holds; raises ``error`` for one that is missing or is no JSON. ``what`` names the thing."""
    try:
        return from_json(read_bytes(path), finite)
    except OSError as problem:
        raise error(f"The {what} '{os.fspath(path)}' cannot be read: {reason(problem)}.") from problem
    except ValueError as problem:  # also a name with a zero byte
        raise error(f"'{os.fspath(path)}' is not a {what}, or it is damaged: {reason(problem)}.") from problem


def read_object(path: PathLike, what: str, error: Raises = NeuronwiseError) -> dict[str, Any]:
    """The JSON object that a file holds; as ``read_json``, and ``error`` for any other value."""
    found = read_json(path, what, error)
    if not isinstance(found, dict):
        raise error(f"'{os.fspath(path)}' is not a {what}, or it is damaged: it holds no object.")
    return found


T = TypeVar("T")


def read_form(path: PathLike, form: type[T], what: str, error: Raises = NeuronwiseError) -> T:
    """``read_json`` of a file in a form of ours, a ``TypedDict``; raises ``error`` for a value of another kind too."""
    content = read_json(path, what, error, finite=True)
    wrong = misfits(content, form)
    if wrong:
        raise error(f"'{os.fspath(path)}' is not a {what}, or it is damaged: {wrong}.")
    return content


def _refuse(number: str) -> None:
    raise ValueError(f"it holds {number}")


def make_folder(path: PathLike, error: Raises = NeuronwiseError) -> Path:
    """Make a folder and those above it unless they exist; raises ``error`` where the disk refuses."""
    with _writing(path, error):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def require_free(directory: PathLike, error: Raises = NeuronwiseError) -> Path:
    """The folder that ``directory`` names, links followed; raises ``error`` unless it is new or empty."""
    folder = Path(directory).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise error(f"'{directory}' is there already; name a new folder.")
    return folder


def write_folder(directory: PathLike, write: Callable[[Path], None], error: Raises = NeuronwiseError) -> None:
    """Fill a folder through a neighboring temporary one, so that no half-written one is ever seen."""
    folder = require_free(directory, error)
    temporary = _beside(folder)
    with new_folders(folder.parent), _writing(directory, error):
        temporary.mkdir(parents=True)
        try:
            write(temporary)
            if folder.exists():  # the folder itself stays: it may be a mount, or where someone is
                with held(folder, error):
                    require_free(directory, error)  # unless another process has filled it meanwhile
                    for part in temporary.iterdir():
                        part.rename(folder / part.name)
            else:
                temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def filling(directory: PathLike, error: Raises = NeuronwiseError) -> Iterator[Path]:
    """Yield a neighboring temporary folder; what is in it goes into ``directory`` when the body ends well.

    Unlike ``write_folder``, into one that may hold something already: files of the same name are replaced.
    """
    folder = Path(directory).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise error(f"'{directory}' is a file; name a folder.")
    temporary = _beside(folder)
    with new_folders(folder), _writing(directory, error):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for part in sorted(temporary.rglob("*")):
                place = folder / part.relative_to(temporary)
                if part.is_dir():
                    place.mkdir(parents=True, exist_ok=True)
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    part.replace(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_folders(folder: Path) -> Iterator[None]:
    """When the body raises, remove ``folder`` and those above it that it made, as far as they are empty."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # not made at all, or something is in it
                path.rmdir()
        raise


class Lines:
    """JSON lines: the rows of ``path``; ``append`` adds one for good. Opened by one process at a time.

    A last line that was cut off when a process was killed is removed at opening. Raises ``error`` for a file that is
    damaged elsewhere, in use by another process, or not writable.
    """

    def __init__(self, path: Path, error: Raises = StudyError) -> None:
        self.path, self._error = path, error
        self._lock: Lock | None = None
        with _writing(path, error):
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


@contextlib.contextmanager
def held(folder: Path, error: Raises = NeuronwiseError) -> Iterator[None]:
    """Keep other processes that ask for the same folder out of it in the body; raises ``error`` where one is in it."""
    try:
        lock = Lock(folder)
    except Locked as held:
        raise error(
            f"Another process is writing into '{folder}'; wait for it or name another folder.{held.hint}"
        ) from held
    with lock:
        yield
