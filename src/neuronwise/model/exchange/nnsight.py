"""nnsight and nnterp: paths of modules, such as ``model.layers.23.mlp.down_proj``.

The activation is the module's input. nnsight has the names of the transformers module; nnterp calls the list of
decoder layers ``layers`` in every architecture, and leaves the names within a layer as aliases.
"""

from __future__ import annotations

import re

from neuronwise.errors import NeuronError
from neuronwise.model.exchange.form import UNITS, Form, Place, Row, first_of, position, whole
from neuronwise.model.model import Model
from neuronwise.model.writers import Writer
from neuronwise.neurons import ScoredNeuron

NAMES = ("module", "path", "name")


def recognizes(row: Row) -> bool:
    """Whether a row names a module below a numbered layer of it."""
    name = first_of(row, NAMES)
    return isinstance(name, str) and ".hook_" not in name and re.search(r"[.\[]\d+[.\]]", name) is not None


def write_path(member: ScoredNeuron, model: Model | None, *, layers: str | None = None) -> dict[str, object]:
    """The module whose input holds the neuron, the column there, and the position."""
    assert model is not None
    neuron = member.neuron
    writer = model.blocks[neuron.layer].writer(neuron)
    if writer.experts is not None and writer.experts.parameter is not None:
        raise NeuronError(f"{neuron} is a neuron of an expert that shares one parameter with others; no module has it.")
    if writer.expert is not None and member.position is not None:
        raise NeuronError(f"{member} is at a position, but an expert's module sees only the tokens routed to it.")
    return {"module": _path(model, writer, layers), "unit": neuron.unit - writer.first, "pos": member.position}


def read(row: Row, model: Model | None) -> Place:
    """The neuron of a column of a module's input, by nnsight's names or nnterp's."""
    assert model is not None
    given = str(first_of(row, NAMES))
    name = re.sub(r"\[(\d+)\]", r".\1", given).removesuffix(".input")
    for writer in model.writers:
        if name in (_path(model, writer, None), _path(model, writer, "layers")):
            unit = whole(row, UNITS)
            if unit >= writer.width:
                raise NeuronError(f"'{given}' has columns 0 to {writer.width - 1}; there is no column {unit}.")
            return writer.neuron(unit), position(row)
    first = _path(model, model.writers[0], None)
    raise NeuronError(f"{model.name} has no module '{given}' that neurons feed; the first is '{first}'.")


def _path(model: Model, writer: Writer, layers: str | None) -> str:
    within = model.blocks[writer.layer].path if layers is None else f"{layers}.{writer.layer}"
    return f"{within}.{writer.path}"


NNSIGHT = Form(
    "nnsight", "nnsight module paths", recognizes, lambda member, model, _: write_path(member, model), read, "always",
    'model.get(row["module"]).input[0, row["pos"], row["unit"]]',
)  # fmt: skip
NNTERP = Form(
    "nnterp", "nnterp module paths", lambda row: False,
    lambda member, model, _: write_path(member, model, layers="layers"), read, "always",
    'model.get(row["module"]).input[0, row["pos"], row["unit"]]',
)  # fmt: skip
