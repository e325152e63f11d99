"""Records that a benchmark spreads over several files of a folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from neuronwise.data.facts.rows import Row


def together(files: Mapping[str, Sequence[Row]], numbers: Collection[str]) -> dict[str, list[Row]]:
    """The files, those that belong together as one, under the name of the first.

    Files of one folder belong together whose records have the same field of ``numbers``: what they say of one number
    is one record, at its place in the first file that has it; a later file overrides an earlier one.
    """
    found: dict[str, list[Row]] = {}
    first: dict[tuple[Path | None, str], str] = {}
    for name, rows in files.items():
        field = next((field for field in numbers if rows and _number(rows[0], field) is not None), None)
        if field is None:
            found[name] = list(rows)
            continue
        home = first.setdefault((rows[0].folder, field), name)
        known = {_number(row, field): place for place, row in enumerate(found.setdefault(home, []))}
        for row in rows:
            place = known.get(_number(row, field)) if _number(row, field) is not None else None
            if place is None:
                found[home].append(row)
            else:
                earlier = found[home][place]
                found[home][place] = replace(earlier, value={**_fields(earlier), **_fields(row)})
    return found


def _fields(row: Row) -> Mapping[str, object]:
    return row.value if isinstance(row.value, Mapping) else {}


def _number(row: Row, field: str) -> str | None:
    value = _fields(row).get(field)
    return None if value is None else str(value)
