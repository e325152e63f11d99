"""Attention heads as values: one head, and a ranked set of heads with the scores that put them there."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, overload

from neuronwise.arguments import taken
from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError
from neuronwise.files import read_json, write_json

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "neuronwise.heads/1"
_ADDRESS = re.compile(r"L(\d+)\.H(\d+)")


@dataclass(frozen=True, slots=True, order=True)
class Head:
    """One attention head of decoder layer ``layer``: what it mixes is a slice of what the output projection reads.

    Both count from 0; in a layer with several attention modules (an encoder-decoder's) the heads of the second follow
    those of the first. It prints as ``L5.H3``, which ``Head.parse`` reads. Raises ``NeuronError`` for what does not
    count.
    """

    layer: int
    head: int

    def __post_init__(self) -> None:
        for name in ("layer", "head"):
            value = taken(name, getattr(self, name), int, error=NeuronError)
            object.__setattr__(self, name, value)
            if value < 0:
                raise NeuronError(f"{name} is {value}; layers and heads count from 0.")

    def __str__(self) -> str:
        return f"L{self.layer}.H{self.head}"

    @classmethod
    def parse(cls, address: str) -> Head:
        """Read ``L5.H3``; raises ``NeuronError`` for anything else."""
        match = _ADDRESS.fullmatch(address.strip())
        if match is None:
            raise NeuronError(f"'{address}' is not an attention head's address; write L5.H3.")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class ScoredHead:
    """A head with its score. It prints as the head does."""

    head: Head
    score: float

    def __str__(self) -> str:
        return str(self.head)

    def to_row(self) -> dict[str, int | float]:
        """The head as plain JSON values: layer, head, score."""
        return {**asdict(self.head), "score": self.score}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ScoredHead:
        """Read what ``to_row`` gave, whatever else the row holds."""
        return cls(Head(row["layer"], row["head"]), row["score"])


@dataclass(frozen=True)
class HeadSet:
    """A ranked set of attention heads, best first, with the record of how it was found.

    Index it for one ``ScoredHead``, slice it for a smaller set; ``head in found`` takes a head or its address. Raises
    ``NonFiniteError`` for a score that is not finite and ``NeuronError`` for a head that is repeated.
    """

    members: tuple[ScoredHead, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        wrong = next((member for member in self.members if not math.isfinite(member.score)), None)
        if wrong is not None:
            raise NonFiniteError(
                f"The score of {wrong} is {wrong.score}; scores must be finite. In half precision, load the model with "
                "dtype=torch.float32 and try again."
            )
        if len(set(self.heads)) != len(self.members):
            raise NeuronError("A set of heads holds each head once; this one repeats some.")

    def __repr__(self) -> str:
        first = ", ".join(map(str, self.members[:3]))
        return f"HeadSet({len(self.members)}: {first}{', ...' if len(self.members) > 3 else ''})"

    @property
    def heads(self) -> tuple[Head, ...]:
        """The head of each member, in order."""
        return tuple(member.head for member in self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[ScoredHead]:
        return iter(self.members)

    def __contains__(self, head: object) -> bool:
        one = Head.parse(head) if isinstance(head, str) else head
        return (one.head if isinstance(one, ScoredHead) else one) in self.heads

    @overload
    def __getitem__(self, index: int) -> ScoredHead: ...
    @overload
    def __getitem__(self, index: slice) -> HeadSet: ...
    def __getitem__(self, index: int | slice) -> ScoredHead | HeadSet:
        if isinstance(index, slice):
            return HeadSet(self.members[index], self.record)
        return self.members[index]

    def to_pandas(self) -> pd.DataFrame:
        """A data frame of one row per member, in order: layer, head, score."""
        import pandas as pd

        return pd.DataFrame([member.to_row() for member in self.members], columns=["layer", "head", "score"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the set as JSON, whole or not at all."""
        rows = [member.to_row() for member in self.members]
        write_json(path, {"schema": SCHEMA, "record": dict(self.record), "heads": rows})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HeadSet:
        """Read what ``save`` wrote; raises ``NeuronwiseError`` for a missing or damaged file."""
        content = read_json(path, "set of heads")
        try:
            if content["schema"] != SCHEMA:
                raise NeuronwiseError(f"'{path}' has the form {content['schema']!r}; this version reads {SCHEMA!r}.")
            return cls(tuple(map(ScoredHead.from_row, content["heads"])), dict(content["record"]))
        except (ValueError, KeyError, TypeError, AttributeError, NeuronError, NonFiniteError) as error:
            raise NeuronwiseError(f"'{path}' is not a set of heads saved by neuronwise, or it is damaged.") from error


Heads = HeadSet | ScoredHead | Head | str | Iterable[ScoredHead | Head | str]


def as_heads(given: object) -> tuple[Head, ...]:
    """The heads that a user means: a set; a head, with its score or without; an address; or several of these.

    Raises ``NeuronError`` for anything else.
    """
    if isinstance(given, str):
        return (Head.parse(given),)
    if isinstance(given, ScoredHead):
        return (given.head,)
    if isinstance(given, Head):
        return (given,)
    if not isinstance(given, Iterable):
        raise NeuronError(f"{given!r:.80} is not an attention head; give a Head or its address, such as 'L5.H3'.")
    return tuple(head for one in given for head in as_heads(one))


def names_heads(given: object) -> bool:
    """Whether something names heads and not neurons; a list does by its first member."""
    if isinstance(given, list | tuple):
        return bool(given) and names_heads(given[0])
    return isinstance(given, Head | ScoredHead | HeadSet) or (
        isinstance(given, str) and _ADDRESS.fullmatch(given.strip()) is not None
    )
