"""MS COCO, any year: photos of the folders beside ``annotations/``, with objects and captions where they are given."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

from neuronwise.data.photos import Captioned, Photos, SeenObject
from neuronwise.errors import DataError


def read_coco(folder: Path, part: str | None = None) -> Photos:
    """Read ``annotations/instances_PART.json`` and ``captions_PART.json`` through pycocotools.

    A photo that ``instances`` does not list has ``objects=None``: nobody looked. Raises ``DataError`` for a part that
    is not there and for annotations that are no COCO file.
    """
    parts = sorted({path.stem.partition("_")[2] for path in (folder / "annotations").glob("*_*.json")})
    if part is not None and part not in parts:
        raise DataError(f"'{folder}' has no annotations of {part!r}; it has {', '.join(parts) or 'none'}.")
    photos: list[Captioned] = []
    problems: list[str] = []
    for name in [part] if part else parts:
        assert name is not None
        _read_part(folder, name, photos, problems)
    return Photos(tuple(photos), tuple(problems), str(folder if part is None else folder / part))


def _read_part(folder: Path, part: str, photos: list[Captioned], problems: list[str]) -> None:
    instances = _open(folder / f"annotations/instances_{part}.json")
    captions = _open(folder / f"annotations/captions_{part}.json")
    listed: dict[int, dict[str, Any]] = {}
    for index in (instances, captions):
        listed |= {} if index is None else index.imgs
    for number, image in sorted(listed.items()):
        path = folder / part / image["file_name"]
        if not path.is_file():
            problems.append(f"{part}: there is no photo '{image['file_name']}'.")
            continue
        said = () if captions is None else tuple(row["caption"].strip() for row in captions.imgToAnns[number])
        seen = None
        if instances is not None and number in instances.imgs:
            seen = tuple(
                SeenObject(
                    instances.cats[row["category_id"]]["name"], row["segmentation"], bool(row["iscrowd"]), row["area"]
                )
                for row in instances.imgToAnns[number]
            )
        photos.append(Captioned(str(number), path, said, seen))


def _open(path: Path) -> Any:
    if not path.is_file():
        return None
    from pycocotools.coco import COCO

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(path))
    except (json.JSONDecodeError, AssertionError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}' is no COCO annotation file: {error}.") from error
