"""Photos with captions and annotated objects, as plain records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SeenObject:
    """An annotated object: its category, COCO's segmentation (polygons or a run-length code), whether it is a crowd."""

    category: str
    segmentation: object
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class Captioned:
    """A photo with its reference captions; without annotations ``objects`` is None (an empty tuple: there are none)."""

    id: str
    path: Path
    captions: tuple[str, ...] = ()
    objects: tuple[SeenObject, ...] | None = None

    def categories(self) -> set[str]:
        """The categories that are annotated on this photo."""
        return {seen.category for seen in self.objects or ()}


@dataclass(frozen=True)
class Photos:
    """The photos of a source, and one sentence for each listed photo that is missing or cannot be used."""

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

    @property
    def digest(self) -> str:
        """SHA-256 over ids, captions, annotations and the files' sizes: changes when the data do."""
        state = hashlib.sha256()
        for photo in self.photos:
            objects = [[seen.category, seen.crowd, seen.segmentation] for seen in photo.objects or ()]
            row = [photo.id, photo.path.name, photo.path.stat().st_size, photo.captions, objects]
            state.update(json.dumps(row, default=str).encode())
        return state.hexdigest()
