"""Files that are read: ordinary ones, JSON, and JSON in a form of ours."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, TypeVar

from neuronwise.errors import NeuronwiseError, reason
from neuronwise.files.kinds import misfits
from neuronwise.files.writing import PathLike, Raises, as_path


def from_json(text: str | bytes, finite: bool = False) -> Any:
    """The value of a JSON text; raises ``ValueError`` for anything else, also for one that is nested too deeply.

    ``finite``: NaN and infinity, which JSON lacks and Python's reader takes, are refused, and so is 1e400.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite) if finite else json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(number: str) -> float:
    raise ValueError(f"it holds {number:.20}")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse(number)


def read_bytes(path: PathLike) -> bytes:
    """What a file holds; raises ``OSError`` for what is no ordinary file: reading a pipe might never end."""
    return ordinary(path).read_bytes()


def ordinary(path: PathLike) -> Path:
    """A path to be opened; raises ``OSError`` for a pipe or a device, on which a reader might wait for ever."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no ordinary file")
    return Path(path)


def below(folder: Path, name: str) -> Path | None:
    """What ``name`` is in a folder, links followed; None where there is nothing, or it leads out of the folder."""
    try:
        path = (folder / name).resolve()
        return path if path.exists() and path.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, a loop of links
        return None


def read_json(path: PathLike, what: str, error: Raises = NeuronwiseError, finite: bool = False) -> Any:
    """What a JSON file holds; raises ``error`` for one that is missing or is no JSON. ``what`` names the thing."""
    path = as_path(path, error)
    try:
        return from_json(read_bytes(path), finite)
    except OSError as problem:
        raise error(f"The {what} '{os.fspath(path)}' cannot be read: {reason(problem)}.") from problem
    except ValueError as problem:  # also a name with a zero byte
        raise error(f"'{os.fspath(path)}' is not a {what}, or it is damaged: {reason(problem)}.") from problem


def read_object(path: PathLike, what: str, error: Raises = NeuronwiseError, finite: bool = False) -> dict[str, Any]:
    """The JSON object that a file holds; as ``read_json``, and ``error`` for any other value."""
    found = read_json(path, what, error, finite)
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
