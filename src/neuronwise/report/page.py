"""The page of one finding: a single HTML file with everything in it, which asks the network nothing."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from neuronwise.errors import NonFiniteError
from neuronwise.report.filled import filled, photo_element, write_index

SCRIPTS = ("tokens.js", "heat.js", "layers.js", "neurons.js", "lens.js", "page.js")  # one scope, joined in this order


Content: TypeAlias = Mapping[str, Any]  # what `find --json` prints


@dataclass(frozen=True)
class ConceptHeat:
    """Where in the photo one concept's neurons fire.

    ``mean`` is an (h, w) grid: the mean activation of the concept's top neurons over the image tokens, empty when the
    model has no grid. ``neurons`` holds one such grid for each of the concept's first neurons. ``box`` is the part of
    the photo that the grid covers (left, top, right, bottom in the photo's pixels), ``None`` for all of it. ``note``
    says what a reader must know about the grid, or why there is none.
    """

    mean: Sequence[Sequence[float]] = ()
    neurons: Sequence[Sequence[Sequence[float]]] = field(default=())
    box: tuple[float, float, float, float] | None = None
    note: str | None = None


def write_page(
    directory: str | os.PathLike[str],
    finding: Content,
    photo: Image.Image | None = None,
    heat: Sequence[ConceptHeat | None] | None = None,
    gallery: str = "",
) -> Path:
    """Write ``directory/index.html``, whole or not at all, and return its path.

    ``finding`` is what ``find --json`` prints; ``heat`` goes with its concepts, one for each; ``gallery`` shows the
    photos of a finding over several (``gallery_element``). Raises
    ``NonFiniteError`` for NaN or infinity among the numbers and ``NeuronwiseError`` where nothing can be written.
    """
    page = filled(
        "page",
        SCRIPTS,
        title=title(finding),
        photo="" if photo is None else photo_element(photo, str(finding.get("text", ""))),
        gallery=gallery,
        finding=finding,
        heat=packed_heat(finding, photo, heat),
    )
    return write_index(directory, page)


def title(finding: Content) -> str:
    """What heads the page's tab: what the model said."""
    said = " ".join(str(finding.get("text") or finding.get("prompt") or "").split())
    said = said if len(said) <= 70 else said[:69] + "…"
    return f"{said} · neuronwise" if said else "neuronwise"


def packed_heat(
    finding: Content, photo: Image.Image | None, heat: Sequence[ConceptHeat | None] | None
) -> list[dict[str, object] | None]:
    """The heat of each concept as the page reads it, None where there is none.

    Raises ``ValueError`` for another number of heats than of concepts.
    """
    concepts = finding["concepts"]
    if heat is not None and len(heat) != len(concepts):
        raise ValueError(f"{len(concepts)} concepts need as many heats, not {len(heat)}.")
    size = (1, 1) if photo is None else photo.size
    return [None if one is None or photo is None else _packed(one, size) for one in heat or [None] * len(concepts)]


def _packed(heat: ConceptHeat, size: tuple[int, int]) -> dict[str, object]:
    """The heat as the page reads it: the box in shares of the photo, each grid in one byte per cell."""
    if len(heat.mean) == 0:
        return {"note": heat.note, "mean": None}
    width, height = size
    left, top, right, bottom = heat.box or (0, 0, width, height)
    mean = _cells(heat.mean)
    rows, columns = mean.shape
    neurons = [_cells(grid) for grid in heat.neurons]
    if any(grid.shape != mean.shape for grid in neurons):
        raise ValueError("The grids of one concept's heat must have one shape.")
    return {
        "note": heat.note,
        "rows": rows,
        "columns": columns,
        "box": [left / width, top / height, right / width, bottom / height],
        "mean": _bytes(mean),
        "neurons": [_bytes(grid) for grid in neurons],
    }


def _cells(grid: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    cells = np.asarray(grid, dtype=np.float64)
    if cells.ndim != 2 or cells.size == 0:
        raise ValueError(f"A heat grid is (h, w), not {cells.shape}.")
    if not np.isfinite(cells).all():
        raise NonFiniteError("The heat holds activations that are not finite; no page was written.")
    return cells


def _bytes(cells: NDArray[np.float64]) -> dict[str, object]:
    """256 steps from the lowest to the highest cell: finer than eyes see, and a tenth of the digits."""
    low, high = float(cells.min()), float(cells.max())
    scaled = (cells - low) / ((high - low) or 1.0) * 255
    return {"low": low, "high": high, "cells": base64.b64encode(np.rint(scaled).astype(np.uint8).tobytes()).decode()}
