"""The lens: how likely a token already is in the residual stream, layer by layer and position by position."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from neuronwise.drawing.cells import Values, draw_cells, save_cells
from neuronwise.drawing.style import Figure
from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.locate.locating import describe
from neuronwise.locate.method import require_own
from neuronwise.locate.positions import POSITIONS, Positions, rows_of
from neuronwise.model import Model
from neuronwise.model.concepts import Concept
from neuronwise.model.modes import computes
from neuronwise.model.run import Run, Target
from neuronwise.model.tail import CELLS, Tail, read_streams
from neuronwise.read.decode import token_strings

SCHEMA = "neuronwise.lens/1"


@dataclass(frozen=True)
class Lens:
    """One token, read in the stream behind every layer at ``positions`` of the sequence, whose ``tokens`` are texts.

    ``log_probs`` (layers, positions) in nats; ``ranks``, 1 where no token is likelier; ``likeliest``, the text of the
    token that is. ``record`` says how it was made.
    """

    target: Target
    positions: tuple[int, ...]
    tokens: tuple[str, ...]
    log_probs: Values
    ranks: npt.NDArray[np.integer]
    likeliest: tuple[tuple[str, ...], ...]
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        layers, positions = self.log_probs.shape
        return f"Lens({self.target.text!r}: {layers} layers × {positions} positions)"

    def to_dict(self) -> dict[str, Any]:
        """One JSON object of schema ``neuronwise.lens/1`` (lens.schema.json)."""
        return {"schema": SCHEMA, **self.record, **self.cells()}

    def cells(self) -> dict[str, Any]:
        """The numbers alone, as plain JSON values."""
        return {
            "positions": list(self.positions),
            "tokens": list(self.tokens),
            "log_probs": [[float(f"{value:.6g}") for value in row] for row in self.log_probs],
            "ranks": self.ranks.tolist(),
            "likeliest": [list(row) for row in self.likeliest],
        }

    @property
    def figure(self) -> Figure:
        """Layers × tokens: the color is log p of the token, the text in a cell the likeliest one there."""
        title = f"log p of {self.target.text!r} by layer"
        draw = partial(
            draw_cells, self.log_probs, range(len(self.log_probs)), self.tokens, title=title, unit="log p (nats)",
            texts=self.likeliest,
        )  # fmt: skip
        return Figure("lens", title, f"{title} and token; the numbers are in the JSON.", draw)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure (.svg, .png) or the numbers (.json)."""
        save_cells(path, self.figure, self.to_dict())


@computes
def lens(
    model: Model,
    run: Run,
    concept: str | Concept | None = None,
    *,
    target: str | int | None = None,
    position: int | None = None,
    occurrence: int = 0,
    positions: Positions = "text",
) -> Lens:
    """log p and rank of a token in the residual stream behind each layer, through the final norm: the logit lens.

    The word or token is named as for ``locate``. ``positions``: "text" (all but an image's tokens, up to the one that
    predicts the token), "image", "all", "predicting", or positions counted from 0 over prompt and generated tokens. A
    stream is read by the model's own final norm, projections, output head, logit scale and soft cap, so that behind
    the last layer log p is the model's own (nostalgebraist 2020). One pass. Raises ``MethodError`` for positions that
    do not exist, and for an architecture whose stream is not one vector a position.
    """
    require_own(model, [run])
    wanted = run.target(concept, target, position, occurrence)
    rows = shown_rows(run, wanted, positions)
    last = run.length + run.row(wanted.position)
    tail = read_streams(model, run.forced_inputs(), [*rows, last])
    log_probs, ranks, best = (
        np.stack(layers)
        for layers in zip(*(_read(tail, layer, wanted) for layer in range(model.num_layers)), strict=True)
    )
    texts = token_strings(model, [int(token) for token in np.unique(best)])
    return Lens(
        wanted, tuple(rows), tuple(run.tokens[row] for row in rows), log_probs, ranks,
        tuple(tuple(texts[int(token)] for token in layer) for layer in best),
        record_of(model, run, wanted),
    )  # fmt: skip


def _read(tail: Tail, layer: int, target: Target) -> tuple[Values, npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """log p, rank and the likeliest token at each position behind one layer."""
    found = []
    for streams in tail.streams[layer][:-1].split(CELLS):
        read = tail.log_probabilities(streams)
        own = read[:, target.token_id, None]
        found.append((own[:, 0], 1 + (read > own).sum(1), read.argmax(1)))
    own, ranks, best = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    if not torch.isfinite(own).all():
        raise NonFiniteError("What the lens reads is not finite; load the model with dtype=torch.float32.")
    return own.numpy(), ranks.numpy(), best.numpy()


def shown_rows(run: Run, target: Target, positions: Positions) -> list[int]:
    """The rows that ``positions`` names: "text" for all but an image's tokens, else as for ``locate``."""
    if isinstance(positions, str) and positions not in (names := ("text", *POSITIONS)):
        raise MethodError(f"positions={positions!r} is unknown; choose one of {', '.join(names)}, or a number.")
    if positions != "text":
        return rows_of(run, target, positions)
    image = set(run.image_rows)
    return [row for row in rows_of(run, target, "all") if row not in image]


def record_of(model: Model, run: Run, target: Target, **options: object) -> dict[str, Any]:
    """What a result by layer and position says of its run and target."""
    record = describe(model, run, target, "", options)
    return {name: value for name, value in record.items() if name not in ("method", "activation")}
