"""Neurons as values: one neuron, and a ranked set of neurons with the scores that put them there."""

from __future__ import annotations

import math
import os
import re
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, overload

from neuronwise.arguments import taken
from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError, told
from neuronwise.files import read_form, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "neuronwise.neurons/1"
_ADDRESS = re.compile(r"L(\d{1,18})\.(?:E(\d{1,18})\.)?U(\d{1,18})(?:@(\d{1,18}))?")


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
    match = _ADDRESS.fullmatch(address.strip()) if isinstance(address, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
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


class _Saved(TypedDict):
    """The file of a set."""

    schema: str
    record: dict[str, Any]
    neurons: list[dict[str, Any]]


@dataclass(frozen=True)
class NeuronSet:
    """A ranked set of neurons, best first, with the record of how it was found.

    It holds each neuron once or, where scores are kept by position, each (neuron, position). Index it for one
    ``ScoredNeuron``, slice it for a smaller set; ``&``, ``|`` and ``-`` are set algebra that keeps the left side's
    order and scores, and take on the right whatever ``as_neurons`` does; ``neuron in found`` takes a neuron, with its
    position or without, or its address. ``record`` holds plain JSON values:
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
        one = ScoredNeuron.parse(neuron) if isinstance(neuron, str) else neuron
        if isinstance(one, ScoredNeuron):
            return one.neuron in self._distinct if one.position is None else one.place in self._places
        return one in self._distinct

    @overload
    def __getitem__(self, index: int) -> ScoredNeuron: ...
    @overload
    def __getitem__(self, index: slice) -> NeuronSet: ...
    def __getitem__(self, index: int | slice) -> ScoredNeuron | NeuronSet:
        if isinstance(index, slice):
            return NeuronSet(self.members[index], self.record)
        return self.members[index]

    def __and__(self, other: Neurons) -> NeuronSet:
        there = NeuronSet.of(other)._places
        return NeuronSet(tuple(m for m in self.members if m.place in there), self.record)

    def __sub__(self, other: Neurons) -> NeuronSet:
        there = NeuronSet.of(other)._places
        return NeuronSet(tuple(m for m in self.members if m.place not in there), self.record)

    def __or__(self, other: Neurons) -> NeuronSet:
        return NeuronSet(self.members + (NeuronSet.of(other) - self).members, self.record)

    def layers(self, count: int) -> list[int]:
        """How many members are in each of the first ``count`` layers."""
        held = Counter(neuron.layer for neuron in self.neurons)
        return [held[layer] for layer in range(count)]

    def to_pandas(self) -> pd.DataFrame:
        """A data frame of one row per member, in order.

        Its columns: layer, expert, unit, score, activation, position, and baseline and adds where any has them.
        """
        import pandas as pd

        columns = ["layer", "expert", "unit", "score", "activation", "position"]
        columns += [name for name in ("baseline", "adds") if any(getattr(m, name) is not None for m in self.members)]
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
        content = read_form(path, _Saved, "set of neurons")
        if content["schema"] != SCHEMA:
            raise NeuronwiseError(f"'{path}' has the form {content['schema']!r}; this version reads {SCHEMA!r}.")
        with told(NeuronwiseError, f"'{path}' is not a set of neurons saved by neuronwise, or it is damaged"):
            try:
                return cls(tuple(map(ScoredNeuron.from_row, content["neurons"])), content["record"])
            except (NeuronError, NonFiniteError) as error:
                raise ValueError(str(error)) from error

    @classmethod
    def of(cls, neurons: Neurons) -> NeuronSet:
        """A set of neurons named by hand, in that order, with the scores that they come with or 0."""
        return neurons if isinstance(neurons, NeuronSet) else cls(as_members(neurons), {"method": "by hand"})


Neurons = (
    NeuronSet | ScoredNeuron | Neuron | str | os.PathLike[str] | Mapping[str, Any]
    | Iterable[ScoredNeuron | Neuron | str | Mapping[str, Any]]
)  # fmt: skip


def as_neurons(given: Neurons) -> tuple[Neuron, ...]:
    """The neurons that a user means, one for each that is named, in order.

    A set; a neuron, with its score or without; an address, which may name a position; the file of a saved set or
    finding; what ``find --json`` printed, as long as it is of one word; rows of a data frame; or several of these.
    Raises ``NeuronError`` for a misspelled address or anything else.
    """
    return tuple(member.neuron for member in as_members(given))


def as_members(given: Neurons) -> tuple[ScoredNeuron, ...]:
    """``as_neurons`` with what each comes with: its score (0 where none is named), activation and position."""
    return tuple(_members(given))


def _members(given: object) -> Iterator[ScoredNeuron]:
    if isinstance(given, NeuronSet):
        yield from given.members
    elif isinstance(given, str) and _ADDRESS.fullmatch(given.strip()):
        yield ScoredNeuron.parse(given)
    elif isinstance(given, os.PathLike) or (isinstance(given, str) and given.endswith(".json")):
        yield from _of_object(read_json(os.fspath(given), "set of neurons", NeuronError))
    elif isinstance(given, str):
        yield ScoredNeuron.parse(given)  # which says how an address is written
    elif isinstance(given, ScoredNeuron):
        yield given
    elif isinstance(given, Neuron):
        yield ScoredNeuron(given, 0.0)
    elif isinstance(given, Mapping):
        yield from _of_object(given)
    elif hasattr(given, "iterrows"):  # a data frame
        yield from (ScoredNeuron.from_row(row) for _, row in given.iterrows())  # type: ignore[attr-defined]
    elif hasattr(given, "iloc"):  # a row of one
        yield ScoredNeuron.from_row(given)  # type: ignore[arg-type]
    elif isinstance(given, Iterable):
        for one in given:
            yield from _members(one)
    else:
        raise NeuronError(f"{given!r:.80} is not a neuron; give a Neuron or its address, such as 'L23.U8083'.")


def _of_object(content: Any) -> Iterator[ScoredNeuron]:
    """The members of a row, of a saved set, or of a finding of one word."""
    try:
        concepts = content.get("concepts")
        if concepts is not None and len(concepts) != 1:
            words = ", ".join(str(one["word"]) for one in concepts)
            raise NeuronError(f"These are the neurons of several words ({words}); give those of one of 'concepts'.")
        rows = [content] if "layer" in content else (content if concepts is None else concepts[0])["neurons"]
        yield from map(ScoredNeuron.from_row, rows)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise NeuronError(
            "This object holds no neurons; give a saved set, a finding, or rows with layer and unit."
        ) from error
