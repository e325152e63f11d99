"""A figure of numbers by layer and token: layers upwards, tokens from left to right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from neuronwise.drawing.style import COLORS, INK, PAPER, Figure, plotting, rendered
from neuronwise.errors import NeuronwiseError
from neuronwise.files import write_bytes, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Values = npt.NDArray[np.floating]
WRITTEN = 14  # columns up to which cells have their texts
LONGEST = 12  # letters of a label
SPACED = 40  # columns up to which each has its label


def draw_cells(
    values: Values,
    layers: Sequence[int],
    tokens: Sequence[str],
    *,
    title: str,
    unit: str,
    texts: Sequence[Sequence[str]] | None = None,
    signed: bool = False,
) -> Drawing:
    """``values`` (layers, tokens) as colors, with ``texts`` in the cells of a narrow figure.

    ``signed``: 0 is the color of paper, what is below it blue.
    """
    from matplotlib.colors import LinearSegmentedColormap

    wide = values.shape[1]
    written = texts is not None and wide <= WRITTEN
    with plotting() as pyplot:
        size = (min(2.6 + wide * (0.86 if written else 0.3), 16), 1.6 + 0.2 * len(layers))
        figure, axes = pyplot.subplots(figsize=size)
        colors = [COLORS[0], PAPER, COLORS[1]] if signed else [PAPER, COLORS[0]]
        most = float(np.abs(values).max()) or 1.0
        limits = {"vmin": -most, "vmax": most} if signed else {}
        scale = LinearSegmentedColormap.from_list("cells", colors)
        image = axes.imshow(values, cmap=scale, aspect="auto", origin="lower", interpolation="nearest", **limits)
        middle = np.inf if signed else (image.norm.vmin + image.norm.vmax) / 2
        for row, line in enumerate((texts or ()) if written else ()):
            for column, text in enumerate(line):
                ink = PAPER if values[row, column] > middle else INK
                axes.text(column, row, _label(text), ha="center", va="center", fontsize=6.5, color=ink)
        each = max(1, -(-wide // SPACED))
        axes.set_xticks(range(0, wide, each), [_label(token) for token in tokens[::each]], rotation=60, ha="right")
        axes.set_yticks(range(0, len(layers), max(1, len(layers) // 12)), layers[:: max(1, len(layers) // 12)])
        axes.set(ylabel="layer", title=title)
        axes.grid(visible=False)
        figure.colorbar(image, label=unit, shrink=0.8)
    return figure


def save_cells(path: str | os.PathLike[str], figure: Figure, content: dict[str, object]) -> None:
    """Write ``content`` to a .json file, or the figure to a .svg or .png; raises ``NeuronwiseError`` for any other."""
    kind = Path(path).suffix.lower()
    if kind == ".json":
        write_json(path, content)
    elif kind in (".svg", ".png"):
        svg, png = rendered(figure)
        write_bytes(path, svg if kind == ".svg" else png)
    else:
        raise NeuronwiseError(f"'{path}' names no kind of file that is known here; end it in .json, .svg or .png.")


def _label(token: str) -> str:
    shown = repr(token)[1:-1].replace(" ", "·")
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"
