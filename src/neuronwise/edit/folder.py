"""Folders that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from neuronwise.errors import EditError


def require_free(directory: str | os.PathLike[str]) -> Path:
    """The folder that ``directory`` names, links followed; raises ``EditError`` unless it is new or empty."""
    folder = Path(directory).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EditError(f"'{directory}' is there already; name a new folder.")
    return folder


def write_folder(directory: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Fill a folder through a neighboring temporary one, so that no half-written one is ever seen."""
    folder = require_free(directory)
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
    except OSError as error:
        raise EditError(f"'{directory}' cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if not done and made is not None:
            for parent in (folder, *folder.parents):
                if parent.is_dir() and not any(parent.iterdir()) and parent.is_relative_to(made):
                    parent.rmdir()  # made by this call alone
