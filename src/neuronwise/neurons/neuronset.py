"""A ranked set of neurons with the scores that put them there, and what a user may give in its place."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, overload

from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError, told
from neuronwise.files import read_json, write_json, write_text
from neuronwise.neurons import snippet
from neuronwise.neurons.columns import Columns
from neuronwise.neurons.neuron import ADDRESS, Neuron, ScoredNeuron
from neuronwise.neurons.ranked import load_ranked, members_of, require_ranked

if TYPE_CHECKING:
    import pandas as pd


SCHEMA = "neuronwise.neurons/1"
SCHEMA_COLUMNS = "neuronwise.neurons/2"  # of a set of columns
MADE = ("method", "options", "activation", "model", "prompt", "text")  # what findings and records have alike


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

    members: Sequence[ScoredNeuron] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.members, Columns):  # which has looked already
            return
        object.__setattr__(self, "members", members_of(self.members, ScoredNeuron))
        require_ranked(self.members, self._places, "neuron")

    @classmethod
    def of_columns(cls, record: Mapping[str, Any] | None = None, **columns: Any) -> NeuronSet:
        """A set of very many neurons, best first, in a second for a million: ``layer``, ``unit``, ``score`` and, where
        there are any, ``expert``, ``activation``, ``position``, ``baseline``, ``adds``, (n,) each; see ``Columns``."""
        return cls(Columns(columns), record or {})

    def __repr__(self) -> str:
        first = ", ".join(str(member) for member in self.members[:3])
        more = ", ..." if len(self.members) > 3 else ""
        return f"NeuronSet({len(self.members)}: {first}{more})"

    def _repr_html_(self) -> str:
        """For notebooks: the first members as a table."""
        about = ", ".join(str(self.record[key]) for key in ("method", "target", "model") if key in self.record)
        rows = ([snippet.text(one), snippet.text(one.score), snippet.text(one.activation)] for one in self.members)
        count = len(self.members)
        return snippet.table(f"{count} neurons", ("neuron", "score", "activation"), rows, count, about)

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
        if isinstance(neuron, str):
            return self._has(ScoredNeuron.parse(neuron))
        if isinstance(neuron, Mapping) or hasattr(neuron, "iloc"):  # rows
            return all(map(self._has, as_members(neuron)))  # type: ignore[arg-type]
        return self._has(neuron)

    def _has(self, one: object) -> bool:
        if isinstance(one, ScoredNeuron):
            return one.neuron in self._distinct if one.position is None else one.place in self._places
        return isinstance(one, Hashable) and one in self._distinct

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
        return NeuronSet((*self.members, *(NeuronSet.of(other) - self).members), self.record)

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

    def to_dict(self) -> dict[str, object]:
        """What ``save`` writes, as plain JSON values: a row for each neuron, or of ``of_columns`` the columns."""
        if isinstance(self.members, Columns):
            return {"schema": SCHEMA_COLUMNS, "record": dict(self.record), "columns": self.members.to_lists()}
        rows = [member.to_row() for member in self.members]
        return {"schema": SCHEMA, "record": dict(self.record), "neurons": rows}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set as JSON, whole or not at all."""
        if isinstance(self.members, Columns):
            write_text(path, json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False))
        else:
            write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NeuronSet:
        """Read what ``save`` wrote; raises ``NeuronwiseError`` for a missing or damaged file."""
        content = read_json(path, "set of neurons", finite=True)
        if isinstance(content, Mapping) and content.get("schema") == SCHEMA_COLUMNS:
            with told(NeuronwiseError, f"'{path}' is not a set of neurons saved by neuronwise, or it is damaged"):
                try:
                    return cls(Columns.from_lists(content["columns"]), content["record"])
                except (NeuronError, NonFiniteError, KeyError, AttributeError) as error:
                    raise ValueError(str(error)) from error
        return load_ranked(
            path, _Saved, SCHEMA, "neurons", lambda rows, record: cls(tuple(map(ScoredNeuron.from_row, rows)), record)
        )

    @classmethod
    def of(cls, neurons: Neurons) -> NeuronSet:
        """A set of neurons named by hand, in that order, with the scores that they come with or 0.

        A file comes with the record of its set, or with what a finding says of how it was made.
        """
        if isinstance(neurons, NeuronSet):
            return neurons
        named = isinstance(neurons, os.PathLike) or (isinstance(neurons, str) and neurons.endswith(".json"))
        content = read_json(os.fspath(neurons), "set of neurons", NeuronError, finite=True) if named else neurons  # type: ignore[arg-type]
        record: object = {}
        if isinstance(content, Mapping):
            record = content.get("record") or {key: content[key] for key in MADE if key in content}
        return cls(as_members(content), record if record and isinstance(record, Mapping) else {"method": "by hand"})


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
    elif isinstance(given, str) and ADDRESS.fullmatch(given.strip()):
        yield ScoredNeuron.parse(given)
    elif isinstance(given, os.PathLike) or (isinstance(given, str) and given.endswith(".json")):
        yield from _of_object(read_json(os.fspath(given), "set of neurons", NeuronError, finite=True))
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
    elif isinstance(given, Iterable) and getattr(given, "ndim", 1):  # a tensor of one number has no parts
        for one in given:
            yield from _members(one)
    else:
        raise NeuronError(f"{given!r:.80} is not a neuron; give a Neuron or its address, such as 'L23.U8083'.")


def _of_object(content: Any) -> Iterator[ScoredNeuron]:
    """The members of a row, of a saved set, or of a finding of one word."""
    try:
        if "columns" in content:
            yield from Columns.from_lists(content["columns"])
            return
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
