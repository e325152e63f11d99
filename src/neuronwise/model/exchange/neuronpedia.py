"""Neuronpedia: model id, layer and index, as in ``gpt2-small@6:650`` or ``…/gpt2-small/6/650``.

Neuronpedia's ids of layers name features of sparse autoencoders too (``6-res-jb``); a neuron's layer is its number
alone. It has no names for routed experts or positions; a position is kept beside.
"""

from __future__ import annotations

import re

from neuronwise.errors import NeuronError
from neuronwise.model.exchange.form import Form, Place, Row, first_of, position, whole
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron, ScoredNeuron

IDS = ("modelId", "model_id")
NAME = re.compile(r"(?:.*/)?([\w.\-]+)(?:@|/)([\w.\-]+)[:/](\d+)/?")


def recognizes(row: Row) -> bool:
    """Whether a row has Neuronpedia's three keys, or its name or address of a neuron."""
    named = isinstance(row.get("name"), str) and NAME.fullmatch(row["name"]) is not None
    return named or (first_of(row, IDS) is not None and "layer" in row)


def write(member: ScoredNeuron, model: Model | None, model_id: str | None) -> dict[str, object]:
    """Neuronpedia's three keys, which are strings."""
    neuron = member.neuron
    if neuron.expert is not None:
        raise NeuronError(f"{neuron} is a neuron of a routed expert, for which Neuronpedia has no name.")
    row: dict[str, object] = {"modelId": model_id, "layer": str(neuron.layer), "index": str(neuron.unit)}
    return row | ({} if member.position is None else {"position": member.position})


def read(row: Row, model: Model | None) -> Place:
    """The neuron of a row or a name; raises ``NeuronError`` for a feature of a sparse autoencoder."""
    match = NAME.fullmatch(str(row.get("name"))) if "layer" not in row else None
    keys = row if match is None else {**row, "layer": match[2], "index": match[3]}
    layer = keys["layer"]
    if not str(layer).strip().isdecimal():
        raise NeuronError(f"'{layer}' is a layer of features, not of neurons; a neuron's layer is its number alone.")
    return Neuron(whole(keys, ("layer",)), whole(keys, ("index",))), position(row)


FORM = Form("neuronpedia", "Neuronpedia's JSON", recognizes, write, read, "id", "")
