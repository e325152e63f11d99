"""A page that is one HTML file: a template filled with data, scripts and style, which asks the network nothing."""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from PIL import Image

from neuronwise.drawing import page
from neuronwise.errors import NonFiniteError
from neuronwise.files import make_folder, write_bytes

LONGEST_SIDE = 1280
THUMBNAIL = 240


def filled(name: str, scripts: Sequence[str], *, title: str, photo: str = "", gallery: str = "", **data: object) -> str:
    """``NAME.html`` with ``NAME.css``, the scripts in one scope, and ``data`` as JSON, one element for each keyword.

    ``photo`` and ``gallery`` are HTML, everything else is escaped. Raises ``NonFiniteError`` for NaN or infinity among
    the numbers.
    """
    body = page.filled(
        _file(f"{name}.html"),
        {"photo": photo, "gallery": gallery, **{key: _json(value) for key, value in data.items()}},
    )
    return page.shell(title, body, _file(f"{name}.css"), "".join(map(_file, scripts)))


def write_index(directory: str | os.PathLike[str], content: str) -> Path:
    """Write ``index.html`` into a folder, made if need be; returns its path."""
    path = make_folder(Path(directory)) / "index.html"
    write_bytes(path, content.encode("utf-8", errors="replace"))
    return path


def _file(name: str) -> str:
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
