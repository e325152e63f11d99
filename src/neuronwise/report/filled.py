"""A page that is one HTML file: a template filled with data, scripts and style, which asks the network nothing."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from neuronwise.drawing import page
from neuronwise.errors import NeuronwiseError, NonFiniteError, told
from neuronwise.files import from_json, make_folder, read_bytes, write_bytes

LONGEST_SIDE = 1280
THUMBNAIL = 240
LARGEST_PAGE = 100_000_000  # bytes of a page that is read again
_DATA = re.compile(r'<script type="application/json" id="(\w+)-json">(.*?)</script>', re.DOTALL)
# Of the photo's element only what cannot be anything else: its description is the caption, escaped.
_PHOTO = re.compile(
    r'<img data-part="photo" width="\d{1,5}" height="\d{1,5}" alt="[^"<>]*" '
    r'src="data:image/jpeg;base64,[A-Za-z0-9+/=]+">'
)


def filled(name: str, scripts: Sequence[str], *, title: str, photo: str = "", gallery: str = "", **data: object) -> str:
    """``NAME.html`` with ``NAME.css``, the scripts in one scope, and ``data`` as JSON, one element for each keyword.

    ``photo`` and ``gallery`` are HTML, everything else is escaped. Raises ``NonFiniteError`` for NaN or infinity among
    the numbers.
    """
    body = filled_body(asset(f"{name}.html"), {"photo": photo, "gallery": gallery}, data)
    return page.shell(title, body, asset(f"{name}.css"), "".join(map(asset, scripts)))


def filled_body(template: str, markup: Mapping[str, str], data: Mapping[str, object]) -> str:
    """A template with ``markup``, HTML that is escaped already, and ``data`` as JSON in its places.

    Raises ``NonFiniteError`` for NaN or infinity among the numbers.
    """
    return page.filled(template, {**markup, **{name: _json(value) for name, value in data.items()}})


def read_page(path: Path) -> Written:
    """The photo and the data of a page that ``filled`` wrote, for other pages; nothing else of it is kept.

    Raises ``NeuronwiseError`` for a file that cannot be read, or whose data is damaged.
    """
    with told(NeuronwiseError, f"The page '{path.name}' cannot be read; it may be damaged"):
        if path.stat().st_size > LARGEST_PAGE:
            raise NeuronwiseError(f"The page '{path.name}' is larger than {LARGEST_PAGE / 1e6:.0f} MB.")
        text = read_bytes(path).decode("utf-8", errors="replace")
        data = {name: from_json(found) for name, found in _DATA.findall(text)}
    photo = _PHOTO.search(text)
    return Written("" if photo is None else photo[0], data)


@dataclass(frozen=True)
class Written:
    """``photo`` is its element, safe to put into another page, "" without one; ``data`` by name."""

    photo: str
    data: Mapping[str, Any]


def write_index(directory: str | os.PathLike[str], content: str) -> Path:
    """Write ``index.html`` into a folder, made if need be; returns its path."""
    path = make_folder(Path(directory)) / "index.html"
    write_bytes(path, content.encode("utf-8", errors="replace"))
    return path


def asset(name: str) -> str:
    """A file of the pages: a template, a script or a style."""
    return resources.files("neuronwise.report").joinpath(name).read_text(encoding="utf-8")


def _json(value: object) -> str:
    """JSON that cannot end the script element that holds it, in ASCII alone (which escapes U+2028 and U+2029 too)."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise NonFiniteError("The page's data hold numbers that are not finite; no page was written.") from error
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def gallery_element(photos: Sequence[tuple[str, str, Image.Image | None]]) -> str:
    """Small photos with their captions, (address, caption, photo) each, every one a link to its own page."""
    return "".join(
        f'<a href="{html.escape(address)}">{"" if photo is None else _image(photo, THUMBNAIL, "")}'
        f"<span>{html.escape(caption)}</span></a>"
        for address, caption, photo in photos
    )


def photo_element(photo: Image.Image, text: str) -> str:
    """The photo as an element that holds it, with the model's caption as its description."""
    alt = f"The photo, which the model captioned: {text}" if text else "The photo"
    return _image(photo, LONGEST_SIDE, alt, 'data-part="photo" ')


def _image(photo: Image.Image, side: int, alt: str, attributes: str = "") -> str:
    shown = photo.convert("RGB")
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=88, optimize=True, progressive=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<img {attributes}width="{shown.width}" height="{shown.height}" alt="{html.escape(alt)}" '
        f'src="data:image/jpeg;base64,{data}">'
    )
