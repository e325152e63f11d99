"""What a ranked set of neurons and one of attention heads share: finite scores, each member once, one form of file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError, told
from neuronwise.files import read_form, write_json

S = TypeVar("S")


class Member(Protocol):
    """A member of a ranked set."""

    @property
    def score(self) -> float:
        """What it is ranked by."""
        ...

    def to_row(self) -> Mapping[str, object]:
        """The member as plain JSON values."""
        ...


def members_of(given: object, kind: type[S]) -> tuple[S, ...]:
    """The members that a set was given; raises ``NeuronError`` for anything but those of its kind."""
    listed = isinstance(given, Iterable) and getattr(given, "ndim", 1)  # a tensor of one number has no parts
    members: list[S] = []
    for one in given if listed else (given,):  # type: ignore[attr-defined]
        if not isinstance(one, kind):
            raise NeuronError(f"The members of a set are {kind.__name__}s, not {one!r:.80}.")
        members.append(one)
    return tuple(members)


def require_ranked(members: Sequence[Member], distinct: Collection[object], noun: str) -> None:
    """Raise ``NonFiniteError`` for a score that is not finite, and ``NeuronError`` where a member comes twice."""
    wrong = next((member for member in members if not math.isfinite(member.score)), None)
    if wrong is not None:
        raise NonFiniteError(
            f"The score of {wrong} is {wrong.score}; scores must be finite. In half precision, load the model with "
            "dtype=torch.float32 and try again."
        )
    if len(distinct) != len(members):
        raise NeuronError(f"A set of {noun}s holds each {noun} once; this one repeats some.")


def save_ranked(
    path: str | os.PathLike[str], schema: str, key: str, members: Sequence[Member], record: Mapping[str, Any]
) -> None:
    """Write a set as JSON, whole or not at all; its members' rows stand under ``key``."""
    write_json(path, {"schema": schema, "record": dict(record), key: [member.to_row() for member in members]})


def load_ranked(
    path: str | os.PathLike[str], form: type[Any], schema: str, key: str, build: Callable[[Any, Any], S]
) -> S:
    """What ``build`` makes of the rows and the record of a saved set, a file of ``form``.

    Raises ``NeuronwiseError`` for a file that is missing, damaged, or of another schema.
    """
    content = read_form(path, form, f"set of {key}")
    if content["schema"] != schema:
        raise NeuronwiseError(f"'{path}' has the form {content['schema']!r}; this version reads {schema!r}.")
    with told(NeuronwiseError, f"'{path}' is not a set of {key} saved by neuronwise, or it is damaged"):
        try:
            return build(content[key], content["record"])
        except (NeuronError, NonFiniteError) as error:
            raise ValueError(str(error)) from error
