"""A form of neurons: how another tool names them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from neuronwise.errors import NeuronError
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron, ScoredNeuron

Row = Mapping[str, Any]
Place = tuple[Neuron, int | None]  # a neuron, and the position or None
POSITIONS, UNITS = ("pos", "position"), ("unit", "neuron", "index")


@dataclass(frozen=True)
class Form:
    """One tool's names; a file of this room defines one, ``FORMS`` names it.

    ``write(member, model, model_id)``: the keys and values by which the tool finds a neuron, as plain JSON values.
    ``read(row, model)``: the neuron of such a row. ``recognizes(row)``: whether a row is of this form; a row may be a
    string (the tool's name of a neuron) that became ``{"name": string}``. ``uses_model``: "always", "id" (the tool has
    ids of its own for models, which are needed to write), or "never" (a model then only says whether the neurons
    exist). ``reading``: Python that gets the activation of a row, with ``row["pos"]`` for the position. ``write`` and
    ``read`` raise ``NeuronError`` for what has no name there.
    """

    name: str
    title: str
    recognizes: Callable[[Row], bool]
    write: Callable[[ScoredNeuron, Model | None, str | None], dict[str, object]]
    read: Callable[[Row, Model | None], Place]
    uses_model: str
    reading: str


def first_of(row: Row, names: tuple[str, ...]) -> Any:
    """What a row holds under the first of these names that it has; None without any."""
    return next((row[name] for name in names if row.get(name) is not None), None)


def whole(row: Row, names: tuple[str, ...]) -> int:
    """A whole number from 0, which may be written as text; raises ``NeuronError`` for anything else."""
    value = first_of(row, names)
    written = isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}\s*", value)
    number = int(value) if written else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        has = "there is none" if value is None else f"it is {value!r:.40}"
        raise NeuronError(f"'{names[0]}' must be a whole number from 0; {has}.")
    return number


def position(row: Row) -> int | None:
    """The position of a row, None where it names none."""
    return None if first_of(row, POSITIONS) is None else whole(row, POSITIONS)
