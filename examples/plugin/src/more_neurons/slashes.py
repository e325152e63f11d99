"""Neurons as "layer/unit", a name that a tool of ours might use."""

from __future__ import annotations

import re

from neuronwise.model import Model
from neuronwise.model.exchange import Form
from neuronwise.model.exchange.form import Place, Row
from neuronwise.neurons import Neuron, ScoredNeuron

NAME = re.compile(r"(\d+)/(\d+)")


def write(member: ScoredNeuron, model: Model | None, model_id: str | None) -> dict[str, object]:
    """The keys by which the tool finds the neuron."""
    return {"name": f"{member.neuron.layer}/{member.neuron.unit}"}


def read(row: Row, model: Model | None) -> Place:
    """The neuron that such a row names, and no position."""
    layer, unit = map(int, row["name"].split("/"))
    return Neuron(layer, unit), None


def recognizes(row: Row) -> bool:
    """Whether a row has such a name."""
    return NAME.fullmatch(str(row.get("name"))) is not None


FORM = Form("slashes", "names with slashes", recognizes, write, read, "never", 'cache[row["name"]]')
