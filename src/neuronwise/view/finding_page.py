"""Pages of findings and circuits: the same scripts and styles as in the files that `find` and `circuit` write."""

from __future__ import annotations

import base64
import functools
import html
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from neuronwise.errors import ImageError, NeuronwiseError, told
from neuronwise.report import circuit as circuits
from neuronwise.report.filled import Written, photo_element, read_page
from neuronwise.report.finding import heat_of
from neuronwise.report.page import packed_heat, title
from neuronwise.view.folders import Folders, Item
from neuronwise.view.pages import Page

if TYPE_CHECKING:
    from neuronwise.locate import Circuit
    from neuronwise.read import Finding

SIDE = 240  # pixels of a photo in a list


def saved_finding(folders: Folders, item: Item) -> Page:
    """A finding of the folders, with the photo and the heat that its own page holds."""
    content = folders.content(item.path / "finding.json", "finding")
    written = _written(item)
    heat = written.data.get("heat")
    if not isinstance(heat, list) or len(heat) != len(content["concepts"]):
        heat = [None] * len(content["concepts"])
    page = _finding(content, heat, written.photo, {"item": item.id, **_beside(folders, item)})
    return replace(page, markup={**page.markup, "gallery": _gallery(folders, item)})


def _gallery(folders: Folders, item: Item) -> str:
    """The photos, or texts, of a finding over several, each a link to its own finding."""
    return "".join(
        f'<a href="{_address("finding", one)}">'
        + (f'<img loading="lazy" src="{_address("thumbnail", one)}" alt="">' if one.photo else "")
        + f"<span>{html.escape(one.title)}</span></a>"
        for one in folders.items()
        if one.part_of == item.id
    )


def _beside(folders: Folders, item: Item) -> dict[str, object]:
    """For one of several photos or texts: the finding over all of them, and the ones before and after it."""
    known = {one.id: one for one in folders.items()}
    own = known.get(item.id, item)
    if not own.part_of:
        return {}
    parts = [one.id for one in known.values() if one.part_of == own.part_of]
    at = parts.index(item.id)
    beside = {"before": parts[at - 1] if at else None, "after": parts[at + 1] if at + 1 < len(parts) else None}
    return {"together": {"id": own.part_of, "title": known[own.part_of].title, **beside}}


def _address(kind: str, item: Item) -> str:
    return html.escape(f"/{kind}/{quote(item.id)}")


def found_page(found: Finding, number: str) -> Page:
    """The page of a finding of this session."""
    content, run = found.to_dict(), found.run
    heat = packed_heat(content, run.image, [heat_of(concept) for concept in found.concepts])
    photo = "" if run.image is None else photo_element(run.image, run.text)
    return _finding(content, heat, photo, {"found": number})


def saved_circuit(folders: Folders, item: Item) -> Page:
    """A circuit of the folders, with the photo and the tokens that its own page holds."""
    content = folders.content(item.path / "circuit.json", "circuit")
    written = _written(item)
    shown = written.data.get("circuit")
    whole = isinstance(shown, dict) and shown.get("nodes") and shown.get("target") == content["target"]
    return _circuit(content, shown if whole else circuits.undrawn(content), written.photo, {"item": item.id})


def traced_page(circuit: Circuit) -> Page:
    """The page of a circuit of this session."""
    photo, shown = circuits.drawn(circuit)
    return _circuit(circuit.record, shown, photo, {})


def thumbnail(item: Item) -> bytes:
    """The photo of a finding or circuit as a small JPEG; raises ``NeuronwiseError`` where its page holds none."""
    page = item.path / "index.html"
    if not page.is_file() or page.is_symlink():
        raise NeuronwiseError(f"'{item.id}' has no page.")
    return _thumbnail(page, page.stat().st_mtime)


@functools.lru_cache(maxsize=512)
def _thumbnail(page: Path, changed: float) -> bytes:
    from PIL import Image

    from neuronwise.images.open import known_formats, open_image

    _, found, data = read_page(page).photo.partition("base64,")
    if not found:
        raise NeuronwiseError(f"'{page.parent.name}' has no photo.")
    with told(ImageError, f"The photo in '{page.parent.name}' is damaged"):
        content = io.BytesIO(base64.b64decode(data.partition('"')[0]))
        image, stream = open_image(Image.open(content, formats=known_formats())), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _written(item: Item) -> Written:
    page = item.path / "index.html"
    return read_page(page) if page.is_file() and not page.is_symlink() else Written("", {})


def _finding(content: Mapping[str, Any], heat: object, photo: str, here: Mapping[str, object]) -> Page:
    data = {"finding": content, "heat": heat}
    return Page("page", title(content), ("finding", "more"), data, markup={"photo": photo, "gallery": ""}, here=here)


def _circuit(content: Mapping[str, Any], shown: object, photo: str, here: Mapping[str, object]) -> Page:
    title = circuits.title(content)
    return Page("circuit", title, ("circuit",), {"circuit": shown}, "circuit", {"photo": photo}, here)
