"""Neurons as values: one neuron, and a ranked set of neurons with the scores that put them there."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError
from neuronwise.files import write_json

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "neuronwise.neurons/1"
_ADDRESS = re.compile(r"L(\d+)\.(?:E(\d+)\.)?U(\d+)(?:@(\d+))?")


@dataclass(frozen=True, slots=True)
class Neuron:
    """One feed-forward neuron: input ``unit`` of the output projection of decoder layer ``layer``.

    Layers count from 0. ``expert`` is the routed expert that holds it, ``None`` in a dense block. It prints as
    ``L23.U8083`` (``L23.E5.U80`` with an expert), which ``Neuron.parse`` reads.
    """

    layer: int
    unit: int
    expert: int | None = None

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
        """Read what ``to_row`` gave, whatever else the row holds."""
        expert = row["expert"]
        return cls(int(row["layer"]), int(row["unit"]), None if expert is None else int(expert))


def _parsed(address: str) -> tuple[Neuron, int | None]:
    match = _ADDRESS.fullmatch(address.strip())
    if match is None:
        raise NeuronError(f"'{address}' is not a neuron's address; write L23.U8083, or L23.E5.U80 for an expert's.")
    layer, expert, unit, position = (None if number is None else int(number) for number in match.groups())
    assert layer is not None
    assert unit is not None
    return Neuron(layer, unit, expert), position


@dataclass(frozen=True, slots=True)
class ScoredNeuron:
    """A neuron with its score and, where the method knows it, its activation at the position that was scored.

    ``baseline`` is what the activation was measured against, ``None`` where that is 0. ``position`` is the row of the
    sequence that the score belongs to, ``None`` where scores are reduced over positions. With one it prints as
    ``L23.U8083@14``, without as the neuron does; ``ScoredNeuron.parse`` reads both.
    """

    neuron: Neuron
    score: float
    activation: float | None = None
    position: int | None = None
    baseline: float | None = None

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
        """The neuron as plain JSON values: layer, unit, expert, score, activation; position and baseline if any."""
        row = {**self.neuron.to_row(), "score": self.score, "activation": self.activation}
        more = {"position": self.position, "baseline": self.baseline}
        return row | {name: value for name, value in more.items() if value is not None}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ScoredNeuron:
        """Read what ``to_row`` gave, whatever else the row holds."""
        return cls(Neuron.from_row(row), row["score"], row["activation"], row.get("position"), row.get("baseline"))


@dataclass(frozen=True)
class NeuronSet:
    """A ranked set of neurons, best first, with the record of how it was found.

    It holds each neuron once or, where scores are kept by position, each (neuron, position). Index it for one
    ``ScoredNeuron``, slice it for a smaller set; ``&``, ``|`` and ``-`` are set algebra that keeps the left side's
    order and scores; ``neuron in found`` takes a ``Neuron`` or its address. ``record`` holds plain JSON values:
    method, target, model, options, versions. Raises ``NonFiniteError`` for a score that is not finite and
    ``NeuronError`` for a neuron that is repeated.
    """

    members: tuple[ScoredNeuron, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        for member in self.members:
            if not math.isfinite(member.score):
                raise NonFiniteError(
                    f"The score of {member.neuron} is {member.score}; scores must be finite. "
                    "In half precision, load the model with dtype=torch.float32 and try again."
                )
        if len(self._places) != len(self.members):
            raise NeuronError("A set of neurons holds each neuron once; this one repeats some.")

    def __repr__(self) -> str:
        first = ", ".join(str(member) for member in self.members[:3])
        more = ", ..." if len(self.members) > 3 else ""
        return f"NeuronSet({len(self.members)}: {first}{more})"

    @cached_property
    def neurons(self) -> tuple[Neuron, ...]:
        """The neuron of each member, in order; one that is held at several positions comes as often."""
        return tuple(member.neuron for member in self.members)

    @cached_property
    def _places(self) -> frozenset[object]:
        return frozenset(member.place for member in self.members)

    @cached_property
    def _distinct(self) -> frozenset[Neuron]:
        return frozenset(self.neurons)

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[ScoredNeuron]:
        return iter(self.members)

    def __contains__(self, neuron: object) -> bool:
        return (Neuron.parse(neuron) if isinstance(neuron, str) else neuron) in self._distinct

    @overload
    def __getitem__(self, index: int) -> ScoredNeuron: ...
    @overload
    def __getitem__(self, index: slice) -> NeuronSet: ...
    def __getitem__(self, index: int | slice) -> ScoredNeuron | NeuronSet:
        if isinstance(index, slice):
            return NeuronSet(self.members[index], self.record)
        return self.members[index]

    def __and__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(tuple(m for m in self.members if m.place in other._places), self.record)

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(tuple(m for m in self.members if m.place not in other._places), self.record)

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(self.members + (other - self).members, self.record)

    def layers(self, count: int) -> list[int]:
        """How many members are in each of the first ``count`` layers."""
        held = Counter(neuron.layer for neuron in self.neurons)
        return [held[layer] for layer in range(count)]

    def to_pandas(self) -> pd.DataFrame:
        """A data frame of one row per member, in order.

        Its columns: layer, expert, unit, score, activation, position, and baseline where any was measured against one.
        """
        import pandas as pd

        columns = ["layer", "expert", "unit", "score", "activation", "position"]
        columns += ["baseline"] * any(member.baseline is not None for member in self.members)
        frame = pd.DataFrame([member.to_row() for member in self.members], columns=columns)
        return frame.astype(
            {"layer": "int64", "expert": "Int64", "unit": "int64", "score": "float64", "position": "Int64"}
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set as JSON, whole or not at all."""
        rows = [member.to_row() for member in self.members]
        write_json(path, {"schema": SCHEMA, "record": dict(self.record), "neurons": rows})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NeuronSet:
        """Read what ``save`` wrote; raises ``NeuronwiseError`` for a missing or damaged file."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise NeuronwiseError(f"'{path}' has the form {content['schema']!r}; this version reads {SCHEMA!r}.")
            return cls(tuple(map(ScoredNeuron.from_row, content["neurons"])), content["record"])
        except OSError as error:
            raise NeuronwiseError(f"The set of neurons '{path}' cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise NeuronwiseError(f"'{path}' is not a set of neurons saved by neuronwise, or it is damaged.") from error

    @classmethod
    def of(cls, neurons: Neurons) -> NeuronSet:
        """A set of neurons named by hand, in that order, each with score 0; an address may name a position."""
        if isinstance(neurons, NeuronSet):
            return neurons
        given = (ScoredNeuron.parse(one) if isinstance(one, str) else one for one in _listed(neurons))
        members = (one if isinstance(one, ScoredNeuron) else ScoredNeuron(as_neuron(one), 0.0) for one in given)
        return cls(tuple(members), {"method": "by hand"})


Neurons = NeuronSet | ScoredNeuron | Neuron | str | Iterable[ScoredNeuron | Neuron | str]


def as_neurons(given: Neurons) -> tuple[Neuron, ...]:
    """The neurons that a user means by a set, a neuron, an address or several of them: one for each, in order.

    Positions of a set's members are left out. Raises ``NeuronError`` for a misspelled address or anything else.
    """
    return given.neurons if isinstance(given, NeuronSet) else tuple(map(as_neuron, _listed(given)))


def as_neuron(given: ScoredNeuron | Neuron | str) -> Neuron:
    """One neuron, given as such, with its score or by its address; raises ``NeuronError`` for anything else."""
    if isinstance(given, str):
        return Neuron.parse(given)
    neuron: object = getattr(given, "neuron", given)
    if not isinstance(neuron, Neuron):
        raise NeuronError(f"{given!r} is not a neuron; give a Neuron or its address, such as 'L23.U8083'.")
    return neuron


def _listed(given: Neurons) -> Iterable[ScoredNeuron | Neuron | str]:
    return given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
