"""Attention heads as values: one head, and a ranked set of heads with the scores that put them there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, overload

from neuronwise.errors import NeuronError
from neuronwise.neurons.neuron import HEAD
from neuronwise.neurons.ranked import load_ranked, members_of, require_ranked, save_ranked
from neuronwise.registry.arguments import taken

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "neuronwise.heads/1"


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
        match = HEAD.fullmatch(address.strip()) if isinstance(address, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if match is None:
            raise NeuronError(f"'{address}' is not an attention head's address; write L5.H3.")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class ScoredHead:
    """A head with its score. It prints as the head does."""

    head: Head
    score: float

    def __post_init__(self) -> None:
        if type(self.score) not in (float, int):
            object.__setattr__(self, "score", taken("score", self.score, float, error=NeuronError))

    def __str__(self) -> str:
        return str(self.head)

    def to_row(self) -> dict[str, int | float]:
        """The head as plain JSON values: layer, head, score."""
        return {**asdict(self.head), "score": self.score}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ScoredHead:
        """Read what ``to_row`` gave, whatever else the row holds."""
        return cls(Head(row["layer"], row["head"]), row["score"])


class _Saved(TypedDict):
    """The file of a set."""

    schema: str
    record: dict[str, Any]
    heads: list[dict[str, Any]]


@dataclass(frozen=True)
class HeadSet:
    """A ranked set of attention heads, best first, with the record of how it was found.

    Index it for one ``ScoredHead``, slice it for a smaller set; ``head in found`` takes a head or its address. Raises
    ``NonFiniteError`` for a score that is not finite and ``NeuronError`` for a head that is repeated.
    """

    members: tuple[ScoredHead, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", members_of(self.members, ScoredHead))
        require_ranked(self.members, set(self.heads), "head")

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
        save_ranked(path, SCHEMA, "heads", self.members, self.record)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HeadSet:
        """Read what ``save`` wrote; raises ``NeuronwiseError`` for a missing or damaged file."""
        return load_ranked(
            path, _Saved, SCHEMA, "heads", lambda rows, record: cls(tuple(map(ScoredHead.from_row, rows)), record)
        )


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
    if not isinstance(given, Iterable) or not getattr(given, "ndim", 1):  # a tensor of one number has no parts
        raise NeuronError(f"{given!r:.80} is not an attention head; give a Head or its address, such as 'L5.H3'.")
    return tuple(head for one in given for head in as_heads(one))


def names_heads(given: object) -> bool:
    """Whether something names heads and not neurons; a list does by its first member."""
    if isinstance(given, list | tuple):
        return bool(given) and names_heads(given[0])
    return isinstance(given, Head | ScoredHead | HeadSet) or (
        isinstance(given, str) and HEAD.fullmatch(given.strip()) is not None
    )
