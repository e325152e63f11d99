"""An index as a folder of files for any web host: a page, a neuron's page, and its data in pieces."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.drawing.page import filled
from neuronwise.errors import ImageError, NeuronwiseError
from neuronwise.files import make_folder, write_bytes, write_folder, write_json, write_text
from neuronwise.neurons import Neuron
from neuronwise.report.filled import filled_body
from neuronwise.view.folders import Item
from neuronwise.view.index_page import at_place, box_of, index_of, index_page, indexes, item_row, photo, short
from neuronwise.view.labels import label_row, labels_of
from neuronwise.view.pages import Page, asset, static
from neuronwise.view.viewer import Viewer

if TYPE_CHECKING:
    from neuronwise.index import Example, Index
    from neuronwise.model import Model

PIECE = 64  # units of a layer (or of one of its experts) in one file
EXAMPLES = 6  # photos and texts of either end of a neuron
ITEMS = 256  # photos and texts in one file
TOKENS = 12
Tell = Callable[[int, int], None]


def export(viewer: Viewer, directory: str | os.PathLike[str], model: Model | None, tell: Tell) -> Path:
    """Write the first index of the opened folders into a new folder; with a model, also what neurons raise and lower.

    ``index.html`` is its page, ``neuron.html?n=L23.U8083`` that of a neuron; ``data/`` holds the neurons and, apart
    from them, the photos' and other texts, ``photos/`` small copies of the photos where ``viewer`` finds them. Raises
    ``NeuronwiseError`` where there is no index, or ``directory`` holds something.
    """
    item = next(iter(indexes(viewer)), None)
    if item is None:
        raise NeuronwiseError("--export writes an index, and the opened folders hold none; see neuronwise index build.")
    index = index_of(item)
    if model is not None:
        index.require(model)
    write_folder(directory, lambda folder: _write(folder, viewer, item, index, model, tell))
    return Path(directory) / "index.html"


def _write(folder: Path, viewer: Viewer, item: Item, index: Index, model: Model | None, tell: Tell) -> None:
    make_folder(folder / "static")
    neuron = Page("neuron", f"neuron · {item.title}", ("load",), {"neuron": None})
    for name, page in (("index", index_page(viewer, item)), ("neuron", neuron)):
        write_text(folder / f"{name}.html", _page(page, item))
        for script in (*page.scripts, name, "bar"):
            write_text(folder / "static" / f"{script}.js", static(f"{script}.js") or "")
    write_text(folder / "static" / "page.css", static("page.css") or "")
    _photos(make_folder(folder / "photos"), viewer, item, index)
    data, done, labels = make_folder(folder / "data"), 0, labels_of(item)
    _items(make_folder(data / "items"), index)
    for (layer, expert, piece), neurons in groupby(_neurons(index), key=_place):
        rows = {str(neuron): _row(index, neuron) for neuron in neurons}
        for name in rows:
            rows[name]["label"] = label_row(labels[name]) if name in labels else None
        if model is not None:
            _add_ends(model, rows)
        inside = make_folder(data / f"L{layer}" / ("" if expert is None else f"E{expert}"))
        write_text(inside / f"{piece}.json", json.dumps(rows, ensure_ascii=False, separators=(",", ":")))
        done += len(rows)
        tell(done, len(index))
    edges = next(iter(_entries(index))).histogram.edges.tolist()
    write_json(data / "about.json", {"title": item.title, "items": len(index.items), "edges": edges})


def _page(page: Page, item: Item) -> str:
    """A page as a file beside its scripts, which loads nothing from elsewhere."""
    scripts = "".join(f'<script type="module" src="static/{name}.js"></script>\n' for name in (*page.scripts, "bar"))
    return filled(
        asset("static.html"),
        {
            "title": html.escape(page.title),
            "bar": filled_body(asset("static-bar.html"), {}, {"bar": {"model": item.model}}),
            "body": filled_body(asset(f"{page.template}.html"), page.markup, page.data),
            "scripts": scripts,
        },
    )


def _neurons(index: Index) -> Iterator[Neuron]:
    for layer in index.layers:
        yield from index.neurons(layer)


def _entries(index: Index) -> Iterator[Any]:
    return (index[neuron] for neuron in _neurons(index))


def _place(neuron: Neuron) -> tuple[int, int | None, int]:
    return neuron.layer, neuron.expert, neuron.unit // PIECE


def _items(folder: Path, index: Index) -> None:
    """The photos and texts with their tokens, "" for one of an image, a number of such after each other as the number:
    what the neurons' examples share."""
    for first in range(0, len(index.items), ITEMS):
        own = [index.items[number] for number in range(first, min(first + ITEMS, len(index.items)))]
        rows = [{**item_row(one), "tokens": _tokens(one.tokens)} for one in own]
        write_text(folder / f"{first // ITEMS}.json", json.dumps(rows, ensure_ascii=False, separators=(",", ":")))


def _tokens(tokens: Sequence[str]) -> list[str | int]:
    return [
        one
        for image, run in groupby(tokens, key=lambda token: not token)
        for one in ([len(list(run))] if image else run)
    ]  # fmt: skip


def _example(one: Example) -> list[object]:
    """The number of its photo or text, the activation, the position among its tokens, and the place in a photo."""
    box = box_of(one)
    return [one.item.number, short(one.value), one.position, *([] if box is None else [box])]


def _row(index: Index, neuron: Neuron) -> dict[str, Any]:
    entry = index[neuron]
    places = {name: at_place(entry.at(name), EXAMPLES, _example) for name in entry.places}
    return {**neuron.to_row(), "threshold": entry.threshold, "places": places}


def _add_ends(model: Model, rows: Mapping[str, dict[str, Any]]) -> None:
    from neuronwise.read import effects

    for row, ends in zip(rows.values(), effects(model, list(rows), TOKENS), strict=True):
        row["ends"] = {"raises": ends.raises, "lowers": ends.lowers}


def _photos(folder: Path, viewer: Viewer, item: Item, index: Index) -> None:
    """Small copies of the photos, as far as they are there."""
    for one in _of_photos(index):
        try:
            write_bytes(folder / f"{one}.jpg", photo(viewer, item, one))
        except ImageError:
            continue


def _of_photos(index: Index) -> Iterable[int]:
    return (one.number for one in index.items if one.kind == "photo")
