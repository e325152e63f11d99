"""A causal trace as a value: what of an answer's probability each restored part brought back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from neuronwise.drawing.cells import Values, draw_cells, save_cells
from neuronwise.drawing.style import Figure
from neuronwise.model.run import Target

SCHEMA = "neuronwise.trace/1"


@dataclass(frozen=True)
class Trace:
    """The probability of a token with the ``subject``'s rows ``corrupted``, and with one part of the pass restored.

    ``restored`` (layers, columns) are probabilities, means over the samples of noise. A column is a position of the
    sequence, or several that are restored together; ``tokens`` are their texts. ``clean`` is the probability without
    noise. ``record`` says how it was made.
    """

    target: Target
    subject: tuple[int, ...]
    layers: tuple[int, ...]
    columns: tuple[tuple[int, ...], ...]
    tokens: tuple[str, ...]
    clean: float
    corrupted: float
    restored: Values
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        layers, columns = self.restored.shape
        return (
            f"Trace({self.target.text!r}: {layers} layers × {columns} columns, p {self.clean:.3g}, corrupted "
            f"{self.corrupted:.3g})"
        )

    @property
    def effects(self) -> Values:
        """(layers, columns) the indirect effects: how much probability each part regained."""
        return self.restored - self.corrupted

    def to_dict(self) -> dict[str, Any]:
        """One JSON object of schema ``neuronwise.trace/1`` (trace.schema.json)."""
        return {
            "schema": SCHEMA,
            **self.record,
            "subject": list(self.subject),
            "clean": self.clean,
            "corrupted": self.corrupted,
            "layers": list(self.layers),
            "columns": [list(rows) for rows in self.columns],
            "tokens": list(self.tokens),
            "restored": [[float(f"{value:.6g}") for value in row] for row in self.restored],
        }

    @property
    def figure(self) -> Figure:
        """Layers × tokens: the color is the probability regained; the subject's tokens have a star."""
        what = self.record.get("options", {}).get("restore", "states")
        title = f"p of {self.target.text!r} regained by {what}: {self.corrupted:.2g} corrupted, {self.clean:.2g} clean"
        starred = [
            f"{token}*" if set(rows) <= set(self.subject) else token
            for token, rows in zip(self.tokens, self.columns, strict=True)
        ]
        draw = partial(
            draw_cells, self.effects, self.layers, starred, title=title, unit="probability regained", signed=True
        )
        return Figure("trace", title, f"{title}, by layer and token; the numbers are in the JSON.", draw)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure (.svg, .png) or the numbers (.json)."""
        save_cells(path, self.figure, self.to_dict())
