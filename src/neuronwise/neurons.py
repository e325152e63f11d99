"""Neurons as values: one neuron, and a ranked set of neurons with the scores that put them there."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError
from neuronwise.files import write_json

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "neuronwise.neurons/1"
_ADDRESS = re.compile(r"L(\d+)\.(?:E(\d+)\.)?U(\d+)")


@dataclass(frozen=True)
class Neuron:
    """One feed-forward neuron: input ``unit`` of the output projection of decoder layer ``layer``.

    Layers count from 0. ``expert`` is the routed expert that holds it, ``None`` in a dense block. It prints as
    ``L23.U8083`` (``L23.E5.U80`` with an expert) and ``Neuron.parse`` reads that back.
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
        match = _ADDRESS.fullmatch(address.strip())
        if match is None:
            raise NeuronError(f"'{address}' is not a neuron's address; write L23.U8083, or L23.E5.U80 for an expert's.")
        layer, expert, unit = match.groups()
        return cls(int(layer), int(unit), None if expert is None else int(expert))


@dataclass(frozen=True)
class ScoredNeuron:
    """A neuron with its score and, where the method knows it, its activation at the position that was scored."""

    neuron: Neuron
    score: float
    activation: float | None = None


@dataclass(frozen=True)
class NeuronSet:
    """A ranked set of neurons, best first, with the record of how it was found.

    Index it for one ``ScoredNeuron``, slice it for a smaller set; ``&``, ``|`` and ``-`` are set algebra that keeps
    the left side's order and scores. ``record`` holds plain JSON values: method, target, model, options, versions.
    Raises ``NonFiniteError`` for a score that is not finite.
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
        if len(set(self.neurons)) != len(self.members):
            raise NeuronError("A set of neurons holds each neuron once; this one repeats some.")

    def __repr__(self) -> str:
        first = ", ".join(str(member.neuron) for member in self.members[:3])
        more = ", ..." if len(self.members) > 3 else ""
        return f"NeuronSet({len(self.members)}: {first}{more})"

    @property
    def neurons(self) -> tuple[Neuron, ...]:
        return tuple(member.neuron for member in self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[ScoredNeuron]:
        return iter(self.members)

    def __contains__(self, neuron: object) -> bool:
        return neuron in self.neurons

    @overload
    def __getitem__(self, index: int) -> ScoredNeuron: ...
    @overload
    def __getitem__(self, index: slice) -> NeuronSet: ...
    def __getitem__(self, index: int | slice) -> ScoredNeuron | NeuronSet:
        if isinstance(index, slice):
            return NeuronSet(self.members[index], self.record)
        return self.members[index]

    def __and__(self, other: NeuronSet) -> NeuronSet:
        theirs = set(other.neurons)
        return NeuronSet(tuple(m for m in self.members if m.neuron in theirs), self.record)

    def __sub__(self, other: NeuronSet) -> NeuronSet:
        theirs = set(other.neurons)
        return NeuronSet(tuple(m for m in self.members if m.neuron not in theirs), self.record)

    def __or__(self, other: NeuronSet) -> NeuronSet:
        return NeuronSet(self.members + (other - self).members, self.record)

    def to_pandas(self) -> pd.DataFrame:
        """A data frame with columns layer, expert, unit, score, activation, one row per neuron, best first."""
        import pandas as pd

        rows = [(m.neuron.layer, m.neuron.expert, m.neuron.unit, m.score, m.activation) for m in self.members]
        frame = pd.DataFrame(rows, columns=["layer", "expert", "unit", "score", "activation"])
        return frame.astype({"layer": "int64", "expert": "Int64", "unit": "int64", "score": "float64"})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set as JSON, whole or not at all."""
        neurons = [
            {
                "layer": m.neuron.layer,
                "expert": m.neuron.expert,
                "unit": m.neuron.unit,
                "score": m.score,
                "activation": m.activation,
            }
            for m in self.members
        ]
        write_json(path, {"schema": SCHEMA, "record": dict(self.record), "neurons": neurons})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NeuronSet:
        """Read what ``save`` wrote; raises ``NeuronwiseError`` for a missing or damaged file."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise NeuronwiseError(f"'{path}' has the form {content['schema']!r}; this version reads {SCHEMA!r}.")
            members = tuple(
                ScoredNeuron(Neuron(row["layer"], row["unit"], row["expert"]), row["score"], row["activation"])
                for row in content["neurons"]
            )
        except OSError as error:
            raise NeuronwiseError(f"The set of neurons '{path}' cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise NeuronwiseError(f"'{path}' is no set of neurons saved by neuronwise, or it is damaged.") from error
        return cls(members, content["record"])

    @classmethod
    def of(cls, neurons: Iterable[Neuron | str]) -> NeuronSet:
        """A set of neurons named by hand, in that order, each with score 0."""
        parsed = (Neuron.parse(n) if isinstance(n, str) else n for n in neurons)
        return cls(tuple(ScoredNeuron(n, 0.0) for n in parsed), {"method": "by hand"})
