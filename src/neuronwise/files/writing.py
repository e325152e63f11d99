"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from neuronwise.errors import NeuronwiseError, reason
from neuronwise.files.locks import Lock, Locked

PathLike: TypeAlias = "str | os.PathLike[str]"


LONGEST_NAME = 255  # bytes of a file's name
Raises: TypeAlias = "Callable[[str], NeuronwiseError]"  # the error class that takes the sentence


def as_path(path: object, error: Raises) -> Path:
    """The path that was given; raises ``error`` for anything else, and for one that no file system takes."""
    try:
        names = os.fsencode(path).split(os.fsencode(os.sep))  # type: ignore[arg-type]
        if max(map(len, names)) > LONGEST_NAME or "\0" in os.fspath(path):  # type: ignore[arg-type, operator]
            raise ValueError
        return Path(path)  # type: ignore[arg-type]
    except (TypeError, ValueError) as problem:
        raise error(f"{path!r:.80} is not the path of a file or folder.") from problem


def expanded(path: object, error: Raises = NeuronwiseError) -> Path:
    """``as_path`` with a home folder in place of ``~``; raises ``error`` for a user that there is not, too."""
    try:
        return as_path(path, error).expanduser()
    except RuntimeError as problem:
        raise error(f"'{path}' is no path: {reason(problem).rstrip('.')}.") from problem


@contextlib.contextmanager
def writing(path: PathLike, error: Raises) -> Iterator[None]:
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
    file = as_path(path, error)
    if not file.name:
        raise error(f"{os.fspath(path)!r} is not the path of a file.")
    temporary = _beside(file)
    try:
        with writing(file, error):
            yield temporary
            temporary.replace(file)
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


def make_folder(path: PathLike, error: Raises = NeuronwiseError) -> Path:
    """Make a folder and those above it unless they exist; raises ``error`` where the disk refuses."""
    folder = as_path(path, error)
    with writing(path, error):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def require_free(directory: PathLike, error: Raises = NeuronwiseError) -> Path:
    """The folder that ``directory`` names, links followed; raises ``error`` unless it is new or empty."""
    folder = _resolved(directory, error)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise error(f"'{directory}' is there already; name a new folder.")
    return folder


def _resolved(directory: PathLike, error: Raises) -> Path:
    with writing(directory, error):
        try:
            return expanded(directory, error).resolve()
        except RuntimeError as problem:  # a loop of links
            raise error(f"'{os.fspath(directory)}' cannot be written: {reason(problem)}.") from problem


def write_folder(directory: PathLike, write: Callable[[Path], None], error: Raises = NeuronwiseError) -> None:
    """Fill a folder through a neighboring temporary one, so that no half-written one is ever seen."""
    folder = require_free(directory, error)
    temporary = _beside(folder)
    with new_folders(folder.parent), writing(directory, error):
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
    folder = _resolved(directory, error)
    if folder.exists() and not folder.is_dir():
        raise error(f"'{directory}' is a file; name a folder.")
    temporary = _beside(folder)
    with new_folders(folder), writing(directory, error):
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
