"""``load_photos``: photos with captions and objects, from a folder in any known form."""

from __future__ import annotations

import os
from pathlib import Path

from neuronwise.data.photos.form import Form
from neuronwise.data.photos.photo import Photos
from neuronwise.errors import DataError
from neuronwise.files import as_path
from neuronwise.registry import Registry
from neuronwise.registry.arguments import checked

# The last form that recognizes a folder is taken: other packages' before all.
FORMS: Registry[Form] = Registry(
    "form of photos",
    {"listed": "neuronwise.data.photos.listed:FORM", "coco": "neuronwise.data.photos.coco:FORM"},
    plural="forms of photos",
    kind="neuronwise.data.photos.form:Form",
    group="neuronwise.photos",
    error=DataError,
)


@checked
def load_photos(source: str | os.PathLike[str], part: str | None = None, form: str | None = None) -> Photos:
    """Read a folder of photos: COCO's layout, photos with a ``metadata.jsonl``, or a form of another package.

    ``part`` names one part of COCO, such as "val2017" (all parts by default). ``form`` is one of ``FORMS``, by default
    the one that recognizes the folder. Listed photos that are missing are named in ``problems``. Raises ``DataError``
    for a folder of none of these forms, or without a photo.
    """
    folder = as_path(source, DataError)
    if not folder.exists():
        raise DataError(f"There is no folder '{folder}' of photos.")
    found = (FORMS[form] if form is not None else _form_of(folder)).read(folder, part)
    if not found.photos:
        first = f" The first of {len(found.problems)} problems: {found.problems[0]}" if found.problems else ""
        raise DataError(f"There is no photo in '{folder}' that can be used.{first}")
    return found


def _form_of(folder: Path) -> Form:
    for name in reversed(list(FORMS)):
        if FORMS[name].recognizes(folder):
            return FORMS[name]
    layouts = "; ".join(f"{name}: {form.layout}" for name, form in FORMS.items())
    raise DataError(f"'{folder}' has no known form of photos ({layouts}).")
