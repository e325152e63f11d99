"""A folder of photos with a ``metadata.jsonl`` that lists them, one object a line, as ``datasets`` reads it too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neuronwise.data.photos.form import Form
from neuronwise.data.photos.photo import Captioned, Photos, SeenObject
from neuronwise.errors import DataError, reason
from neuronwise.files import from_json, read_bytes

LISTING = "metadata.jsonl"


def read_listed(folder: Path, part: str | None = None) -> Photos:
    """Photos by ``file_name`` (or ``file``), with ``captions`` (or ``caption``, or ``text``), ``objects`` and ``id``.

    Without ``objects`` a photo counts as unannotated; each object is a category's name, or an object with ``category``,
    ``segmentation`` and ``crowd``.
    """
    try:
        lines = read_bytes(folder / LISTING).decode("utf-8").split("\n")  # U+2028 and its kin end no line of JSON
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{folder / LISTING}' cannot be read: {reason(error)}.") from error
    photos, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            photos.append(_photo(folder, from_json(line)))
        except FileNotFoundError as error:
            problems.append(f"{LISTING} line {number}: there is no photo '{error}'.")
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            problems.append(f"{LISTING} line {number} is not a record of a photo ({reason(error)}).")
    return Photos(tuple(photos), tuple(problems), str(folder))


def _photo(folder: Path, row: dict[str, object]) -> Captioned:
    name = row.get("file_name") or row["file"]
    said = row.get("captions") or ([row[key] for key in ("caption", "text") if key in row][:1])
    captions = tuple(one for one in said if isinstance(one, str)) if isinstance(said, list) else ()
    if not isinstance(said, list) or len(captions) < len(said):
        raise TypeError("its captions are not texts")
    objects = row.get("objects")
    if not isinstance(name, str) or not (objects is None or isinstance(objects, list)):
        raise TypeError("its file name is not a text, or its objects are not a list")
    if not (folder / name).is_file():
        raise FileNotFoundError(name)
    seen = None if objects is None else tuple(map(_object, objects))
    return Captioned(str(row.get("id", name)), folder / name, captions, seen)


def _object(row: object) -> SeenObject:
    if isinstance(row, str):
        return SeenObject(row, None)
    if not isinstance(row, Mapping):
        raise TypeError("an object is neither a category nor a record")
    return SeenObject(str(row["category"]), row.get("segmentation"), bool(row.get("crowd", False)))


FORM = Form("photos with a metadata.jsonl that lists them", lambda folder: (folder / LISTING).is_file(), read_listed)
