"""What an index is gathered over: photos of a folder or a list, texts of a file or a list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from neuronwise.data.photos import Captioned, Photos, load_photos
from neuronwise.data.photos.load import FORMS
from neuronwise.data.texts import read_texts
from neuronwise.errors import DataError
from neuronwise.files import as_path
from neuronwise.images.open import FORMATS

PhotosLike: TypeAlias = str | os.PathLike[str] | Photos | Iterable[str | os.PathLike[str] | Captioned]
TextsLike: TypeAlias = str | os.PathLike[str] | Iterable[object]
_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".ppm", ".jp2")


@dataclass(frozen=True)
class Source:
    """Photos, each with its name, then texts. ``digest`` changes when they do; ``problems``: what was left out."""

    photos: Sequence[tuple[str, Captioned]]
    texts: Callable[[], Iterator[str]]
    number_of_texts: int
    digest: str
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.photos) + self.number_of_texts

    @property
    def about(self) -> dict[str, Any]:
        """What an index records of it."""
        return {
            "digest": self.digest, "photos": len(self.photos), "texts": self.number_of_texts,
            "problems": list(self.problems),
        }  # fmt: skip

    def __iter__(self) -> Iterator[tuple[str, Captioned | str]]:
        yield from self.photos
        yield from ((str(number), text) for number, text in enumerate(self.texts()))

    @classmethod
    def of(cls, photos: PhotosLike | None, texts: TextsLike | None, field: str = "text") -> Source:
        """As users say it; raises ``DataError`` for what cannot be read, and for nothing."""
        if photos is None and texts is None:
            raise DataError("There is nothing to index: give photos or texts.")
        found = Photos(()) if photos is None else _photos(photos)
        given = texts
        if given is not None and not isinstance(given, (str, os.PathLike)):
            given = list(given)
        state, count = hashlib.sha256(), 0

        def each() -> Iterator[str]:
            return iter(()) if given is None else read_texts(given, field)

        for text in each():
            state.update(text.encode(errors="surrogatepass") + b"\0")
            count += 1
        if not found.photos and not count:
            raise DataError("There is nothing to index: no photo, and no text that is not blank.")
        names = _names([photo.path for photo in found], found.source)
        for name in names:
            state.update(name.encode(errors="surrogatepass") + b"\0")
        state.update(found.digest.encode())
        listed = list(zip(names, found, strict=True))
        return cls(listed, each, count, state.hexdigest(), found.problems)


def _photos(given: PhotosLike) -> Photos:
    if isinstance(given, Photos):
        return given
    if isinstance(given, (str, os.PathLike)):
        folder = as_path(given, DataError)
        if folder.is_dir() and not any(FORMS[name].recognizes(folder) for name in FORMS):
            return _plain(folder)
        return load_photos(folder)
    listed = [one if isinstance(one, Captioned) else Captioned(Path(one).name, Path(one)) for one in given]
    there = [photo for photo in listed if os.path.isfile(photo.path)]
    missing = tuple(f"There is no photo '{photo.path.name}'." for photo in listed if photo not in there)
    if not there:
        raise DataError(missing[0] if missing else "There is no photo to index.")
    return Photos(tuple(there), missing)


def _plain(folder: Path) -> Photos:
    """All images of a folder without a listing, in order of their names, subfolders included."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    if not files:
        raise DataError(f"There is no photo in '{folder}': no file ends as one of {', '.join(FORMATS)} does.")
    return Photos(tuple(Captioned(path.relative_to(folder).as_posix(), path) for path in files), (), str(folder))


def _names(paths: Sequence[Path], source: str) -> list[str]:
    """Names of files relative to the data's folder; of a list, their own where they differ. None is absolute."""
    root, own = Path(source).absolute(), [path.name for path in paths]
    if source:
        whole = [path.absolute() for path in paths]
        return [path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name for path in whole]
    if len(set(own)) == len(own):
        return own
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return [path.absolute().relative_to(root).as_posix() for path in paths]
