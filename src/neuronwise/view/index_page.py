"""What an index says: of a neuron, for its page; of all photos and texts, on a page of its own."""

from __future__ import annotations

import contextlib
import functools
import io
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.errors import ImageError, NeuronwiseError
from neuronwise.files import below
from neuronwise.neurons import Neuron
from neuronwise.view.asked import Alike, Decoded
from neuronwise.view.folders import Item
from neuronwise.view.labels import label_row, label_rows, labels_or_why
from neuronwise.view.live import Live
from neuronwise.view.pages import Page
from neuronwise.view.viewer import Viewer
from neuronwise.view.worker import Event, Job

if TYPE_CHECKING:
    from neuronwise.index import Entry, Example, Index
    from neuronwise.index import Item as Kept

EXAMPLES, WORDS, SIMILAR = 20, 12, 12
LISTED = 240  # photos and texts on the page of an index
AROUND = 24  # tokens of a text that are shown before and after the one on which a neuron fires
AROUND_CHARACTERS = 100
SIDE = 480  # pixels of a photo beside a neuron


@functools.lru_cache(maxsize=8)
def _loaded(path: Path, changed: float) -> Index:
    from neuronwise.index import Index

    return Index.load(path)


def index_of(item: Item) -> Index:
    """The index of an item, opened once; raises ``IndexingError``."""
    return _loaded(item.path, (item.path / "index.json").stat().st_mtime)


def indexed(viewer: Viewer, neuron: Neuron) -> dict[str, Any] | None:
    """What the first index that has a neuron says of it; None where none has it."""
    item = first_with(viewer, neuron)
    if item is None:
        return None
    index = index_of(item)
    entry = index[neuron]
    places = {name: at_place(entry.at(name)) for name in entry.places}
    labels, why = labels_or_why(item)
    return {
        "id": item.id, "title": item.title, "items": len(index.items), "threshold": entry.threshold,
        "note": another_model(viewer, index) or why, "photos": _at_hand(viewer, index),
        "edges": entry.histogram.edges.tolist(), "places": places,
        "label": label_row(labels[neuron]) if neuron in labels else None,
    }  # fmt: skip


def indexes(viewer: Viewer) -> list[Item]:
    """The indexes of the opened folders that can be read."""
    return [item for item in viewer.folders.items() if item.kind == "index" and not item.broken]


def first_with(viewer: Viewer, neuron: Neuron) -> Item | None:
    """The first index that has a neuron; what is wrong with a damaged one is said on its own page."""
    for item in indexes(viewer):
        with contextlib.suppress(NeuronwiseError):
            if neuron in index_of(item):
                return item
    return None


def decoded(viewer: Viewer, live: Live, job: Job, asked: Decoded) -> Event:
    """What neurons raise and lower, and what is to be said where the index of the first is of another model."""
    found = live.decode(job, asked)
    item = first_with(viewer, Neuron.parse(asked.neurons[0]))
    return {**found, "note": None if item is None else another_model(viewer, index_of(item))}


def similar(item: Item, neuron: Neuron) -> list[dict[str, Any]]:
    """The neurons that fire on the same photos and texts."""
    return [{"neuron": str(one.neuron), "score": one.score} for one in index_of(item).similar(neuron, top=SIMILAR)]


def writing_alike(viewer: Viewer, live: Live, job: Job, asked: Alike) -> Event:
    """The neurons whose value vectors are most like one's, by the weights of the model."""
    index, model = index_of(viewer.item("index", asked.item)), live.model(job)
    job.tell("looking through the model")
    found = index.similar(asked.neuron, by="writes", model=model, top=SIMILAR)
    return {"neurons": [{"neuron": str(one.neuron), "score": one.score} for one in found]}


def firing_on(viewer: Viewer, word: str) -> dict[str, Any] | None:
    """The neurons that tell the photos and texts which name a word, by the first index; None without one."""
    item = next(iter(indexes(viewer)), None)
    if item is None:
        return None
    found = index_of(item).locate(word, top=EXAMPLES)
    rows = [{"neuron": str(one.neuron), "score": one.score} for one in found]
    return {"index": item.title, "neurons": rows, "named": found.record["named"], "items": found.record["items"]}


def another_model(viewer: Viewer, index: Index) -> str | None:
    """What to say where the index is of another model than the viewer's; None before that is open."""
    model = None if viewer.live is None else viewer.live.opened
    if model is None:
        return None
    try:
        index.require(model)
    except NeuronwiseError as error:
        return str(error)
    return None


def _at_hand(viewer: Viewer, index: Index) -> bool:
    """Whether the photos of an index are below the folders of photos: whether its first one is."""
    if "image" not in index.positions:
        return False
    first = next((one for one in index.items if one.kind == "photo"), None)
    return first is not None and _file(viewer, first.name) is not None


def _file(viewer: Viewer, name: str) -> Path | None:
    found = (below(folder, name) for folder in viewer.photo_folders)
    return next((path for path in found if path is not None and path.is_file()), None)


def at_place(entry: Entry, examples: int = EXAMPLES, row: Callable[[Example], object] | None = None) -> dict[str, Any]:
    """What an entry says at its place, as plain JSON values, with so many photos and texts of either end, each as
    ``row`` says it."""
    said, top, bottom = row or _row, entry.top(examples), entry.bottom(examples)
    return {
        "count": entry.count, "mean": entry.mean, "std": entry.std, "frequency": entry.frequency,
        "histogram": entry.histogram.counts.tolist(), "top": list(map(said, top)), "bottom": list(map(said, bottom)),
        "words": _words(top) if entry.place == "predicting" else [],
    }  # fmt: skip


def _words(examples: Sequence[Example]) -> list[list[object]]:
    """On which words it acted: the tokens that were predicted where it fires most, with how often each."""
    said = Counter(
        one.item.tokens[one.position + 1] for one in examples if one.position + 1 < len(one.item.tokens)
    )  # fmt: skip
    return [[token, count] for token, count in said.most_common(WORDS)]


def _row(one: Example) -> dict[str, Any]:
    return {
        **item_row(one.item), "value": short(one.value), "token": one.token, "box": box_of(one),
        "before": "".join(one.item.tokens[max(0, one.position - AROUND) : one.position])[-AROUND_CHARACTERS:],
        "after": "".join(one.item.tokens[one.position + 1 : one.position + 1 + AROUND])[:AROUND_CHARACTERS],
    }  # fmt: skip


def box_of(example: Example) -> list[float] | None:
    """Where in the photo the token lies: left, top, right, bottom in shares of its size."""
    if example.region is None or example.item.size is None:
        return None
    return [short(edge / example.item.size[at % 2]) for at, edge in enumerate(example.region)]


def item_row(item: Kept) -> dict[str, Any]:
    """A photo or text as plain JSON values; ``ratio`` is a photo's width by its height."""
    ratio = item.size[0] / item.size[1] if item.size else 1.5
    return {"item": item.number, "kind": item.kind, "name": item.name, "text": item.text[:300], "ratio": ratio}


def short(number: float) -> float:
    """Four digits are more than a page shows."""
    return float(f"{number:.4g}")


def index_page(viewer: Viewer, item: Item) -> Page:
    """The page of an index: what it is of, and its photos and texts."""
    index = index_of(item)
    labels, why = labels_or_why(item)
    rows = [item_row(index.items[number]) for number in range(min(len(index.items), LISTED))]
    data = {
        "id": item.id, "title": item.title, "photos": _at_hand(viewer, index), "model": index.model,
        "neurons": len(index), "count": len(index.items),
        "positions": index.positions, "layers": list(index.layers), "items": rows, "left_out": index.left_out,
        "first": [str(next(index.neurons(layer))) for layer in index.layers],
        "labels": label_rows(labels.values()), "note": another_model(viewer, index) or why,
    }  # fmt: skip
    return Page("index", f"{item.title} · neuronwise", ("index",), {"index": data}, here={"index": item.id})


def photo(viewer: Viewer, item: Item, number: int) -> bytes:
    """A photo of an index as a small JPEG; raises as ``photo_file`` does."""
    from neuronwise.images import open_image

    path = photo_file(viewer, index_of(item), number)
    return _small(path, path.stat().st_mtime, open_image)


def photo_file(viewer: Viewer, index: Index, number: int) -> Path:
    """The file of a photo of an index; raises ``ImageError`` where it is not below the folders of photos."""
    if not 0 <= number < len(index.items) or index.items[number].kind != "photo":
        raise NeuronwiseError(f"This index has no photo {number}.")
    name = index.items[number].name
    path = _file(viewer, name)
    if path is None:
        raise ImageError(f"The photo '{name}' is not below the folder of photos; name that with --photos.")
    return path


@functools.lru_cache(maxsize=512)
def _small(path: Path, changed: float, opened: Any) -> bytes:
    image, stream = opened(path), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
