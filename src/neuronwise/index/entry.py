"""What an index says of one neuron: when it fires, how much, and on what most."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuronwise.drawing.cells import save_cells
from neuronwise.drawing.style import Figure
from neuronwise.errors import IndexingError
from neuronwise.index.bins import Histogram, unpacked
from neuronwise.index.figure import drawn
from neuronwise.index.items import Item, Items
from neuronwise.index.tally import OPEN, UNKNOWN
from neuronwise.neurons import Neuron, snippet
from neuronwise.registry.arguments import checked

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SCHEMA = "neuronwise.index.entry/1"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Example:
    """A photo or text on which a neuron fires, and where it does so most: row ``position`` of the sequence.

    ``value`` is the activation there (router weight · a for a routed expert's neuron). ``gate`` and ``input`` are the
    signs, 1 or -1, of the two factors of a gated block; None without a known gate, and for 0.
    """

    value: float
    item: Item
    place: str
    position: int
    gate: int | None = None
    input: int | None = None

    @property
    def token(self) -> str:
        """The text of the token at the position; "" for one of the image."""
        return self.item.tokens[self.position]

    @property
    def region(self) -> tuple[float, float, float, float] | None:
        """(left, top, right, bottom) in photo pixels of the image's token at the position; None for another."""
        return self.item.region(self.position)

    def __repr__(self) -> str:
        return f"Example({self.value:.3g} at {self.token or 'the photo'!r}@{self.position} of {self.item.name})"


@dataclass(frozen=True)
class Entry:
    """A neuron at one of the index's ``places``; ``at`` gives it at another.

    ``count`` positions were counted: all that were read, for a routed expert's neuron those that were routed to it.
    ``mean`` and ``std`` are its activation's there. ``frequency`` is the share of them at which it fires: the size of
    its activation is at or above ``threshold``, its layer's: the median of its neurons' root mean squares where they
    predict, rounded up to an edge of the histogram.
    """

    neuron: Neuron
    place: str
    places: tuple[str, ...]
    threshold: float
    _arrays: Arrays = field(repr=False, compare=False)
    _items: Items = field(repr=False, compare=False)

    @checked
    def at(self, place: str) -> Entry:
        """The same neuron at "predicting" positions, at "image" tokens or at other "text" tokens."""
        if place not in self.places:
            raise IndexingError(f"place is {place!r}; this index has {', '.join(self.places)}.")
        return replace(self, place=place)

    @property
    def count(self) -> int:
        """How many positions were counted."""
        return int(self._own("counts"))

    @property
    def mean(self) -> float:
        """Mean activation."""
        return float(self._own("moments")[0])

    @property
    def std(self) -> float:
        """Standard deviation of the activation."""
        return float(self._own("moments")[1])

    @property
    def frequency(self) -> float:
        """The share of positions at which it fires."""
        return float(self._own("moments")[2])

    @property
    def histogram(self) -> Histogram:
        """Its activations in 64 bins."""
        return Histogram(unpacked(self._own("histogram")))

    @checked
    def top(self, k: int = 20) -> list[Example]:
        """The photos and texts with its largest activations, largest first, each once: at most as many as are kept."""
        return self._examples(0, k)

    @checked
    def bottom(self, k: int = 20) -> list[Example]:
        """The photos and texts with its smallest activations, smallest first: at most as many as are kept."""
        return self._examples(1, k)

    def _own(self, name: str) -> NDArray[Any]:
        return self._arrays[name][self.places.index(self.place)]

    def _examples(self, end: int, k: int) -> list[Example]:
        if k < 1:
            raise IndexingError(f"k is {k}; ask for 1 example or more.")
        value, item, position, gate = (
            self._own(name)[end, :k].tolist() for name in ("value", "item", "position", "gate")
        )
        return [
            Example(one, self._items[number], self.place, row, *_signs(code, one))
            for one, number, row, code in zip(value, item, position, gate, strict=True)
            if number >= 0
        ]

    def to_dict(self, k: int = 20) -> dict[str, Any]:
        """The neuron at all places as one JSON object of schema ``neuronwise.index.entry/1`` (entry.schema.json)."""
        return {
            "schema": SCHEMA, **self.neuron.to_row(), "threshold": self.threshold,
            "places": {place: self.at(place)._at_place(k) for place in self.places},
        }  # fmt: skip

    def _at_place(self, k: int) -> dict[str, Any]:
        return {
            "count": self.count, "mean": self.mean, "std": self.std, "frequency": self.frequency,
            "histogram": self.histogram.counts.tolist(), "top": _rows(self.top(k)), "bottom": _rows(self.bottom(k)),
        }  # fmt: skip

    def figure(self) -> Drawing:
        """A matplotlib figure: its histogram at each place; raises ``NeuronwiseError`` without matplotlib."""
        panels = {
            f"{self.neuron} at {place}: mean {own.mean:.3g}, fires at {own.frequency:.1%} of {own.count}": own.histogram
            for place, own in ((place, self.at(place)) for place in self.places)
        }
        return drawn(panels, self.threshold)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure (.svg, .png) or the object of ``to_dict`` (.json)."""
        title = f"Activations of {self.neuron}"
        save_cells(path, Figure("activations", title, f"{title}: histograms by place.", self.figure), self.to_dict())

    def _repr_html_(self) -> str:
        """For notebooks: the photos and texts with its largest activations."""
        top = self.top(snippet.SHOWN) if self.count else []
        rows = ([snippet.text(one.value), snippet.chips([one.token]), snippet.text(one.item.text[:160])] for one in top)
        return snippet.table(repr(self), ("activation", "token", "text"), rows, len(top))

    def __repr__(self) -> str:
        return (
            f"Entry({self.neuron} at {self.place}: mean {self.mean:.3g}, std {self.std:.3g}, fires at "
            f"{self.frequency:.1%} of {self.count} positions)"
        )


def _signs(code: int, value: float) -> tuple[int | None, int | None]:
    """The signs of gate and input: their product is the value's."""
    if code == UNKNOWN or value == 0:
        return None, None
    gate = 1 if code == OPEN else -1
    return gate, int(np.sign(value)) * gate


def _rows(examples: Sequence[Example]) -> list[dict[str, Any]]:
    return [
        {
            "value": one.value, "item": one.item.number, "kind": one.item.kind, "name": one.item.name,
            "text": one.item.text, "position": one.position, "token": one.token, "gate": one.gate, "input": one.input,
            "region": None if one.region is None else list(one.region),
        }
        for one in examples
    ]  # fmt: skip
