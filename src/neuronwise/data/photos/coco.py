"""MS COCO, any year: photos of the folders beside ``annotations/``, with objects and captions where they are given."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any, Required, TypeAlias, TypedDict

from neuronwise.data.photos.form import Form
from neuronwise.data.photos.photo import Captioned, Photos, SeenObject
from neuronwise.errors import DataError, told
from neuronwise.files import read_form

Index: TypeAlias = Any  # pycocotools.coco.COCO, whose own types lack captions


def read_coco(folder: Path, part: str | None = None) -> Photos:
    """Read ``annotations/instances_PART.json`` and ``captions_PART.json`` through pycocotools.

    A photo that ``instances`` does not list has ``objects=None``: it is not annotated. Raises ``DataError`` for a part
    that does not exist and for annotations that are not a COCO file.
    """
    parts = sorted({path.stem.partition("_")[2] for path in (folder / "annotations").glob("*_*.json")})
    if part is not None and part not in parts:
        raise DataError(f"'{folder}' has no annotations of {part!r}; it has {', '.join(parts) or 'none'}.")
    photos: list[Captioned] = []
    problems: list[str] = []
    for name in parts if part is None else [part]:
        instances = _opened(folder / f"annotations/instances_{name}.json")
        captions = _opened(folder / f"annotations/captions_{name}.json")
        listed = {} if instances is None else dict(instances.imgs)
        listed |= {} if captions is None else captions.imgs
        for number, image in sorted(listed.items()):
            try:
                photos.append(_photo(number, folder / name, image["file_name"], instances, captions))
            except FileNotFoundError as error:
                problems.append(f"{name}: there is no photo '{error}'.")
            except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
                problems.append(f"{name}: the record of photo {number} is incomplete ({error!r}).")
    return Photos(tuple(photos), tuple(problems), str(folder if part is None else folder / part))


def _photo(number: int, folder: Path, name: str, instances: Index | None, captions: Index | None) -> Captioned:
    if not (folder / name).is_file():
        raise FileNotFoundError(name)
    said = () if captions is None else tuple(row["caption"].strip() for row in captions.imgToAnns[number])
    seen = None
    if instances is not None and number in instances.imgs:
        seen = tuple(
            SeenObject(
                instances.cats[row["category_id"]]["name"], row["segmentation"], bool(row["iscrowd"]), row["area"]
            )
            for row in instances.imgToAnns[number]
        )
    return Captioned(str(number), folder / name, said, seen)


def _opened(path: Path) -> Index | None:
    if not path.is_file():
        return None
    from pycocotools.coco import COCO

    with told(DataError, f"'{path}' is not a COCO annotation file"):
        content = read_form(path, _Annotations, "COCO annotation file", DataError)
        index: Index = COCO()
        index.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            index.createIndex()
        return index


class _Annotations(TypedDict, total=False):
    """COCO's file, as far as it is read; it may hold more."""

    images: Required[list[_Listed]]
    annotations: list[_Annotation]
    categories: list[_Category]


class _Listed(TypedDict):
    id: int
    file_name: str


class _Category(TypedDict):
    id: int
    name: str


class _Annotation(TypedDict, total=False):
    image_id: Required[int]
    category_id: int
    caption: str
    segmentation: object
    iscrowd: int
    area: float


FORM = Form("photos in folders beside annotations/", lambda folder: (folder / "annotations").is_dir(), read_coco)
