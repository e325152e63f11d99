"""A page that is one HTML file: a template filled with data, scripts and style, which asks the network nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from PIL import Image

from neuronwise.errors import NonFiniteError
from neuronwise.files import make_folder, write_bytes

LONGEST_SIDE = 1280


def filled(name: str, scripts: Sequence[str], *, title: str, photo: str = "", **data: object) -> str:
    """``NAME.html`` with ``NAME.css``, the scripts in one scope, and ``data`` as JSON, one element for each keyword.

    ``photo`` is HTML, everything else is escaped. Raises ``NonFiniteError`` for NaN or infinity among the numbers.
    """
    script, style = "".join(_file(one) for one in scripts), _file(f"{name}.css")
    parts = {
        "policy": _policy(script, style),
        "title": html.escape(title),
        "style": style,
        "photo": photo,
        "script": script,
        **{key: _json(value) for key, value in data.items()},
    }
    # One pass: a placeholder's name inside a prompt or a caption is never filled in.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _file(f"{name}.html"))


def write_index(directory: str | os.PathLike[str], page: str) -> Path:
    """Write ``index.html`` into a folder, made if need be; returns its path."""
    path = make_folder(Path(directory)) / "index.html"
    write_bytes(path, page.encode("utf-8", errors="replace"))
    return path


def _file(name: str) -> str:
    return resources.files("neuronwise.report").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Only this very script and style run; nothing is loaded but the images inside the file, nothing is sent."""
    code, look = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style))
    return (
        f"default-src 'none'; script-src 'sha256-{code}'; style-src 'sha256-{look}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _json(value: object) -> str:
    """JSON that cannot end the script element that holds it, in ASCII alone (which escapes U+2028 and U+2029 too)."""
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise NonFiniteError("The page's data hold numbers that are not finite; no page was written.") from error
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def photo_element(photo: Image.Image, text: str) -> str:
    """The photo as an element that holds it, with the model's caption as its description."""
    shown = photo.convert("RGB")
    shown.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    shown.save(stream, "JPEG", quality=88, optimize=True, progressive=True)
    data = base64.b64encode(stream.getvalue()).decode()
    alt = html.escape(f"The photo, which the model captioned: {text}" if text else "The photo")
    return (
        f'<img data-part="photo" width="{shown.width}" height="{shown.height}" alt="{alt}" '
        f'src="data:image/jpeg;base64,{data}">'
    )
