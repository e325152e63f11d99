"""Writing a circuit to a folder: the page to look at and the object behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.errors import NeuronwiseError, PromptError
from neuronwise.files import filling, write_json
from neuronwise.locate.graph import Circuit
from neuronwise.model.grid import image_grid
from neuronwise.read.decode import effects
from neuronwise.report.filled import filled, photo_element, write_index

if TYPE_CHECKING:
    from neuronwise.model.run import Run

SHOWN = 1500  # edges that the page holds, the strongest; circuit.json has all of them
TOKENS = 6


def write_circuit(directory: str | os.PathLike[str], circuit: Circuit) -> Path:
    """Write ``circuit.json`` and ``index.html`` into ``directory``; returns the page's path.

    A circuit without its run cannot be drawn: raises ``NeuronwiseError``.
    """
    photo, shown = drawn(circuit)
    page = filled("circuit", ("circuit.js",), title=title(circuit.record), photo=photo, circuit=shown)
    with filling(directory) as folder:
        path = write_index(folder, page)
        write_json(folder / "circuit.json", circuit.to_dict())
    return Path(directory) / path.name


def title(record: Mapping[str, Any]) -> str:
    """What heads the page's tab."""
    return f"{record.get('target')} · circuit · neuronwise"


def drawn(circuit: Circuit) -> tuple[str, dict[str, Any]]:
    """The photo's element, "" without one, and the circuit as its page draws it.

    A circuit without its run cannot be drawn: raises ``NeuronwiseError``.
    """
    run = circuit.run
    if run is None:
        raise NeuronwiseError("This circuit was loaded without its run; find it again to draw its page.")
    content = circuit.to_dict()
    shown = {**content, "edges": content["edges"][:SHOWN], "all_edges": len(content["edges"])}
    for row, effect in zip(shown["nodes"], effects(run.model, circuit.nodes, TOKENS), strict=True):
        row["raises"], row["lowers"] = effect.raises, effect.lowers
    shown["grid"] = _grid(run)
    shown["num_layers"] = run.model.num_layers
    return "" if run.image is None else photo_element(run.image, run.text), shown


def undrawn(content: Mapping[str, Any]) -> dict[str, Any]:
    """A saved circuit as its page draws it, without what needs the model: tokens of nodes, places in the photo."""
    nodes = [{"raises": [], "lowers": [], **row} for row in content["nodes"]]
    edges = content["edges"]
    layers = 1 + max((row["layer"] for row in nodes), default=0)
    return {**content, "nodes": nodes, "edges": edges[:SHOWN], "all_edges": len(edges), "grid": None,
            "num_layers": layers}  # fmt: skip


def _grid(run: Run) -> dict[str, Any] | None:
    """Where each image position lies in the photo, in shares of it; None where positions have no place."""
    if run.image is None or not run.has_image_tokens:
        return None
    try:
        grid = image_grid(run)
    except PromptError:
        return None
    if grid.mixing is not None:
        return None
    width, height = run.image.size
    left, top, right, bottom = grid.box
    return {
        "positions": [int(position) for position in grid.positions],
        "rows": grid.height,
        "columns": grid.width,
        "box": [left / width, top / height, right / width, bottom / height],
    }
