"""A folder with an album.txt of lines "file | caption"."""

from __future__ import annotations

from pathlib import Path

from neuronwise.data.photos.form import Form
from neuronwise.data.photos.photo import Captioned, Photos


def read_album(folder: Path, part: str | None = None) -> Photos:
    """The photos in the order of the file."""
    lines = (folder / "album.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines]
    return Photos(tuple(Captioned(name, folder / name, (caption,)) for name, caption in rows), source=str(folder))


FORM = Form("photos with an album.txt", lambda folder: (folder / "album.txt").is_file(), read_album)
