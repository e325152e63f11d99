"""Entries of a recipe's lists: something from a table by its name, with options and sweeps of options."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field

Options: TypeAlias = dict[str, Any]
Sweep: TypeAlias = dict[str, list[Any]]
FOUND = "found"  # in place of a number: as many as a filter found
Count = Annotated[int, Field(ge=1)] | Literal["found"]


class Entry(Protocol):
    """``key`` is the field that names the thing; ``name`` is what the tables call it, where one is given."""

    key: ClassVar[str]
    name: str | None
    options: Options
    sweep: Sweep

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """The same entry with other values."""
        ...


E = TypeVar("E", bound=Entry)


def combinations(sweep: Sweep) -> list[Options]:
    """Every combination of swept values, as options."""
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def called(name: str, options: Mapping[str, object]) -> str:
    """A name with options behind it: "contribution contrast=10"."""
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


def name_of(entry: Entry) -> str:
    """What the tables call an entry: its given name, or the thing's with what is not default."""
    return entry.name or called(getattr(entry, entry.key), entry.options)


def each(entries: Sequence[E]) -> list[E]:
    """The entries with every sweep written out."""
    return [
        entry.model_copy(
            update={
                "options": {**entry.options, **chosen},
                "sweep": {},
                "name": called(entry.name, chosen) if entry.name else None,
            }
        )
        for entry in entries
        for chosen in combinations(entry.sweep)
    ]


def named(key: str, short: Callable[[Any], Any] = lambda entry: entry) -> BeforeValidator:
    """Lets a list of entries hold plain names, or forms that ``short`` writes out."""

    def whole(listed: object) -> object:
        if not isinstance(listed, list):
            return listed
        return [{key: one} if isinstance(one, str) else short(one) for one in listed]

    return BeforeValidator(whole)
