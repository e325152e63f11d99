"""One neuron, alone and with its score."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuronwise.errors import NeuronError
from neuronwise.registry.arguments import taken

ADDRESS = re.compile(r"L(\d{1,18})\.(?:E(\d{1,18})\.)?U(\d{1,18})(?:@(\d{1,18}))?")
HEAD = re.compile(r"L(\d{1,18})\.H(\d{1,18})")  # an attention head's


@dataclass(frozen=True, slots=True)
class Neuron:
    """One feed-forward neuron: input ``unit`` of the output projection of decoder layer ``layer``.

    Layers count from 0. ``expert`` is the routed expert that holds it, ``None`` in a dense block. It prints as
    ``L23.U8083`` (``L23.E5.U80`` with an expert), which ``Neuron.parse`` reads. Raises ``NeuronError`` for what does
    not count: a negative number, or one that is not whole.
    """

    layer: int
    unit: int
    expert: int | None = None

    def __post_init__(self) -> None:
        for name in ("layer", "unit", "expert"):
            value = getattr(self, name)
            if type(value) is not int and not (name == "expert" and value is None):
                value = taken(name, value, int, error=NeuronError)
                object.__setattr__(self, name, value)
            if value is not None and value < 0:
                raise NeuronError(f"{name} is {value}; layers, units and experts count from 0.")

    def __str__(self) -> str:
        expert = "" if self.expert is None else f"E{self.expert}."
        return f"L{self.layer}.{expert}U{self.unit}"

    def __lt__(self, other: Neuron) -> bool:
        return self._key < other._key

    @property
    def _key(self) -> tuple[int, int, int]:
        return self.layer, -1 if self.expert is None else self.expert, self.unit

    @classmethod
    def parse(cls, address: str) -> Neuron:
        """Read ``L23.U8083`` or ``L23.E5.U80``; raises ``NeuronError`` for anything else."""
        neuron, position = _parsed(address)
        if position is not None:
            raise NeuronError(f"'{address}' is a neuron at one position; write '{neuron}' for the neuron itself.")
        return neuron

    def to_row(self) -> dict[str, int | None]:
        """The neuron as plain JSON values: layer, unit, expert."""
        return {"layer": self.layer, "unit": self.unit, "expert": self.expert}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Neuron:
        """Read what ``to_row`` gave, whatever else the row holds; pandas may have made whole numbers floats."""
        layer, unit, expert = (_whole(row.get(name)) for name in ("layer", "unit", "expert"))
        return cls(layer, unit, expert)  # type: ignore[arg-type] (None is refused there)


def _whole(value: Any) -> Any:
    """A number as an int where it is whole, None where pandas has no value."""
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if str(value) == "<NA>" else value


def _parsed(address: str) -> tuple[Neuron, int | None]:
    match = ADDRESS.fullmatch(address.strip()) if isinstance(address, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    if match is None and HEAD.fullmatch(str(address).strip()):
        raise NeuronError(
            f"'{address}' is an attention head, not a neuron; "
            "`neuronwise find --heads N` shows which tokens heads raise."
        )
    if match is None:
        raise NeuronError(f"'{address}' is not a neuron's address; write L23.U8083, or L23.E5.U80 for an expert's.")
    layer, expert, unit, position = (None if number is None else int(number) for number in match.groups())
    assert layer is not None
    assert unit is not None
    return Neuron(layer, unit, expert), position


_NUMBERS = {
    "score": float,
    "activation": float | None,
    "position": int | None,
    "baseline": float | None,
    "adds": float | None,
}


@dataclass(frozen=True, slots=True)
class ScoredNeuron:
    """A neuron with its score and, where the method knows it, its activation at the position that was scored.

    ``baseline`` is what the activation was measured against, ``None`` where that is 0. ``adds`` is what the neuron adds
    to the logit, where the score is that times something else (the option ``focus``). ``position`` is the row of the
    sequence that the score belongs to, ``None`` where scores are reduced over positions. With one it prints as
    ``L23.U8083@14``, without as the neuron does; ``ScoredNeuron.parse`` reads both.
    """

    neuron: Neuron
    score: float
    activation: float | None = None
    position: int | None = None
    baseline: float | None = None
    adds: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.neuron, Neuron):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise NeuronError(f"{self.neuron!r:.80} is not a neuron; give a Neuron.")
        for name, kind in _NUMBERS.items():
            value = getattr(self, name)
            if type(value) not in (float, int, types.NoneType) or (value is None and name == "score"):
                object.__setattr__(self, name, taken(name, value, kind, error=NeuronError))

    def __str__(self) -> str:
        return str(self.neuron) if self.position is None else f"{self.neuron}@{self.position}"

    @property
    def place(self) -> Neuron | tuple[Neuron, int]:
        """What a set holds once: the neuron, or the neuron at a position."""
        return self.neuron if self.position is None else (self.neuron, self.position)

    @classmethod
    def parse(cls, address: str) -> ScoredNeuron:
        """Read ``L23.U8083`` or ``L23.U8083@14``, with score 0; raises ``NeuronError`` for anything else."""
        neuron, position = _parsed(address)
        return cls(neuron, 0.0, position=position)

    @property
    def sign(self) -> int:
        """−1 where it writes its value vector turned around here: an activation below its baseline; else 1."""
        return -1 if (self.activation or 0.0) < (self.baseline or 0.0) else 1

    def to_row(self) -> dict[str, int | float | None]:
        """The neuron as plain JSON values: layer, unit, expert, score, activation; position, baseline, adds if any."""
        row = {**self.neuron.to_row(), "score": self.score, "activation": self.activation}
        more = {"position": self.position, "baseline": self.baseline, "adds": self.adds}
        return row | {name: value for name, value in more.items() if value is not None}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ScoredNeuron:
        """Read what ``to_row`` gave, whatever else the row holds."""
        numbers = (_whole(row.get(name)) for name in ("activation", "position", "baseline", "adds"))
        return cls(Neuron.from_row(row), row.get("score", 0.0), *numbers)
