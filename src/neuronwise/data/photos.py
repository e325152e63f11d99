"""Photos with captions and objects as plain records, from COCO, SBU captions, or any folder with a list."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronwise.errors import DataError


@dataclass(frozen=True)
class SeenObject:
    """An annotated object: its category's name, COCO's segmentation (polygons or a run-length code), crowd or one."""

    category: str
    segmentation: Any
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class Captioned:
    """A photo with its reference captions; ``objects`` is None where nobody annotated them (not: there are none)."""

    id: str
    path: Path
    captions: tuple[str, ...] = ()
    objects: tuple[SeenObject, ...] | None = None

    def categories(self) -> set[str]:
        """The categories that are annotated on this photo."""
        return {seen.category for seen in self.objects or ()}


@dataclass(frozen=True)
class Photos:
    """Photos that are there, and by name those that are listed but missing, with other problems, each as a sentence."""

    photos: tuple[Captioned, ...]
    problems: tuple[str, ...] = ()
    source: str = ""

    def __len__(self) -> int:
        return len(self.photos)

    def __iter__(self) -> Iterator[Captioned]:
        return iter(self.photos)

    def __str__(self) -> str:
        annotated = sum(photo.objects is not None for photo in self.photos)
        return (
            f"{len(self.photos)} photos ({annotated} with annotated objects) from {self.source}; "
            f"{len(self.problems)} listed ones left out"
        )

    def with_object(self, category: str) -> tuple[Captioned, ...]:
        """Photos on which an object of the category is annotated; raises ``DataError`` listing what there is."""
        found = tuple(photo for photo in self.photos if category in photo.categories())
        if not found:
            known = sorted({name for photo in self.photos for name in photo.categories()})
            there = f"there are {', '.join(known)}" if known else "no photo has annotated objects"
            raise DataError(f"No photo of {self.source} has an object {category!r} annotated; {there}.")
        return found

    @property
    def digest(self) -> str:
        """SHA-256 over ids, captions, annotations and the files' sizes: changes when the data do."""
        state = hashlib.sha256()
        for photo in self.photos:
            row = [photo.id, photo.path.name, photo.path.stat().st_size, photo.captions]
            row.append([[o.category, o.crowd, o.segmentation] for o in photo.objects or ()])
            state.update(json.dumps(row, default=str).encode())
        return state.hexdigest()


def load_photos(source: str | os.PathLike[str], part: str | None = None) -> Photos:
    """Read a folder of photos: COCO's layout, SBU captions' manifest, or photos with a ``metadata.jsonl``.

    ``part`` names one part of COCO, such as "val2017" (all parts by default). Listed photos that are missing are
    counted and named in ``problems``. Raises ``DataError`` for a folder of none of these forms, or without a photo.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"There is no folder '{folder}' of photos.")
    if (folder / "annotations").is_dir():
        from neuronwise.data.coco import read_coco

        found = read_coco(folder, part)
    elif (folder / "metadata.jsonl").is_file():
        found = _listed(folder, folder / "metadata.jsonl")
    else:
        raise DataError(f"The folder '{folder}' has neither annotations/ (as COCO) nor a metadata.jsonl that lists it.")
    if not found.photos:
        first = f" The first of {len(found.problems)} problems: {found.problems[0]}" if found.problems else ""
        raise DataError(f"There is no photo in '{folder}' that can be used.{first}")
    return found


def _listed(folder: Path, listing: Path) -> Photos:
    photos, problems = [], []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name = row.get("file_name") or row["file"]
            captions = row.get("captions") or ([row[key] for key in ("caption", "text") if key in row][:1])
            path = folder / name
            if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
                raise TypeError("its captions are no texts")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{listing.name} line {number} is no record of a photo ({error}).")
            continue
        if not path.is_file():
            problems.append(f"{listing.name} line {number}: there is no photo '{name}'.")
            continue
        objects = row.get("objects")
        seen = None if objects is None else tuple(_object(one) for one in objects)
        photos.append(Captioned(str(row.get("id", name)), path, tuple(captions), seen))
    return Photos(tuple(photos), tuple(problems), str(folder))


def _object(row: Any) -> SeenObject:
    if isinstance(row, str):
        return SeenObject(row, None)
    return SeenObject(row["category"], row.get("segmentation"), bool(row.get("crowd", False)))
