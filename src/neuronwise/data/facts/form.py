"""A form of facts: how a benchmark writes its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from neuronwise.data.facts.fact import FactCase
from neuronwise.data.facts.fields import Record


@dataclass(frozen=True)
class Form:
    """What a form does with a record, an object of JSON.

    ``recognizes(fields)``: whether it is one of this form. ``case(record, id)``: the case that it makes; raises
    ``RecordError`` where it makes none. ``prepare(records, seed)`` sees all records of a file first, and returns them
    with what they need of each other. ``numbers``: fields by which records of several files of a folder are one.
    """

    recognizes: Callable[[Mapping[str, object]], bool]
    case: Callable[[Record, str], FactCase]
    prepare: Callable[[Sequence[object], int], list[object]] | None = None
    numbers: tuple[str, ...] = ()
