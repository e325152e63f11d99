"""Rows of a study, taken together for its tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from neuronwise.drawing.tables import Estimate
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.study.store import Row

Rows = Sequence[Row]


def by(rows: Iterable[Row], *columns: str) -> dict[Any, list[Row]]:
    """Rows by their values in some columns (one column: by the value itself), in the order of their first rows."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[column] for column in columns)
        found.setdefault(key if len(columns) > 1 else key[0], []).append(row)
    return found


def where(rows: Iterable[Row], **values: object) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[column] == value for column, value in values.items())]


def mean(rows: Iterable[Row], column: str, digits: int = 2) -> Estimate | None:
    """The mean of a column over the rows that have a value there, with its 95 % bootstrap interval."""
    values = (row.get(column) for row in rows)
    return Estimate.of(mean_interval(None if value is None else float(value) for value in values), digits)


def average(rows: Rows, column: str, digits: int = 2) -> Estimate:
    """The mean of a column that every row has, without an interval."""
    return Estimate(sum(row[column] for row in rows) / len(rows), digits=digits)
