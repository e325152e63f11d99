"""Two records beside one another: what differs, and where."""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RELATIVE = 1e-5
ROUNDING = 3e-6  # of a difference of two log-probabilities in single precision


def address(row: Any) -> str | None:
    """The neuron of a row that holds one with a score, else None."""
    if isinstance(row, dict) and {"layer", "unit", "score"} <= row.keys():
        return f"{row['layer']}.{row.get('expert')}.{row['unit']}"
    if isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) and re.match(r"L\d+\.", row[0]):
        return row[0]
    return None


def score(row: Any) -> float:
    return row["score"] if isinstance(row, dict) else row[1]


def columns(row: Any) -> dict[str, Any]:
    return row if isinstance(row, dict) else {"score": row[1], "activation": row[2]}


def allowed(scale: float) -> float:
    return max(RELATIVE * scale, ROUNDING)


def differences(old: Any, new: Any, where: str, scale: float = 0.0) -> Iterator[tuple[str, str]]:
    """Pairs (place, what differs); ``scale`` is the largest number beside these."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new)):
        if old != new and not abs(old - new) <= allowed(max(abs(old), abs(new), scale)):
            yield where, f"{old!r} → {new!r}"
    elif isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            if key in new:
                yield from differences(value, new[key], f"{where}/{key}")
            else:
                yield f"{where}/{key}", "is gone"
    elif isinstance(old, list) and isinstance(new, list):
        if old and new and address(old[0]) is not None and address(new[0]) is not None:
            yield from ranking(old, new, where)
        elif len(old) != len(new):
            yield where, f"{len(old)} → {len(new)} members"
        else:
            sizes = [scale, *(abs(v) for v in [*old, *new] if isinstance(v, int | float))]
            for number, (one, other) in enumerate(zip(old, new, strict=True)):
                yield from differences(one, other, f"{where}[{number}]", max(sizes))
    elif old != new or type(old) is not type(new):
        yield where, f"{str(old)[:120]!r} → {str(new)[:120]!r}"


def ranking(old: Sequence[Any], new: Sequence[Any], where: str) -> Iterator[tuple[str, str]]:
    """Two rankings agree when each neuron has its score, and those at the cut are as good as one another."""
    ones, others = ({address(row): row for row in rows} for rows in (old, new))
    rows = [columns(row) for row in (*old, *new)]
    numbers = {key for row in rows for key, value in row.items() if isinstance(value, float)}
    scales = {key: max(abs(row.get(key) or 0.0) for row in rows) for key in numbers}
    near = allowed(scales.get("score", 0.0))
    if len(ones) != len(others):
        yield where, f"{len(ones)} → {len(others)} neurons"
    lowest = min(score(row) for row in old)
    for name in dict.fromkeys([*ones, *others]):
        if name in ones and name in others:
            for key, value in columns(ones[name]).items():
                if key in columns(others[name]):
                    there = f"{where}/{name}/{key}"
                    yield from differences(value, columns(others[name])[key], there, scales.get(key, 0.0))
                else:
                    yield f"{where}/{name}/{key}", "is gone"
        elif abs(score(ones.get(name) or others[name]) - lowest) > near:
            yield f"{where}/{name}", "is gone" if name in ones else "is new"
    for order in (old, new):
        pairs = itertools.pairwise(order)
        falls = [one for one, after in pairs if score(after) - score(one) > near]
        if falls:
            yield where, f"{address(falls[0])} is ranked over a better one"


def compare(old_path: Path, new_path: Path, only: str, expected: Sequence[str]) -> int:
    """Print what differs among results of a name like ``only``; 1 when ``expected`` does not name all of it."""
    both = [json.loads(path.read_text(encoding="utf-8")) for path in (old_path, new_path)]
    old, new = ({name: value for name, value in one.items() if fnmatch.fnmatch(name, only)} for one in both)
    wrong = 0
    for name, value in old.items():
        found = list(differences(value, new[name], name)) if name in new else [(name, "is gone")]
        for where, what in found[:5]:
            known = any(fnmatch.fnmatch(where, pattern) for pattern in expected)
            wrong += not known
            print(f"{'expected' if known else 'DIFFERS'}  {where}: {what}")
        if len(found) > 5:
            print(f"         {name}: {len(found) - 5} more")
    for name in new.keys() - old.keys():
        print(f"new      {name}")
    failed = [name for name, value in old.items() if isinstance(value, dict) and "error" in value]
    print(f"{len(old)} results, of which {len(failed)} are errors; {wrong} differences")
    return int(wrong > 0)
