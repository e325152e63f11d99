"""One fact taken out of an edit of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from neuronwise.edit.delta import Delta, Record
from neuronwise.edit.edit import Edit
from neuronwise.errors import EditError

# What a record has in one piece, however many facts its edit has learned; its other lists go from fact to fact.
_WHOLE = ("settings", "made_with", "parts", "layers", "versions", "context_templates", "deltas_of")


def facts_in(edit: Edit) -> list[dict[str, Any]]:
    """The requests of an edit, of all of its parts, in order; what is not about facts is one request."""
    return _requests(edit.record)


def without(edit: Edit, number: int) -> Edit:
    """The edit without its fact ``number``, counted from 0; the other facts' changes are as they were.

    Possible where the changes of each fact are kept apart: in sums of edits, and in edits of editors that learn facts
    one by one (``fine``, ROME). What was learned after a fact, with it in place, is not learned again. The verdict is
    left out: it is about the whole edit. Raises ``EditError`` for a number that is none, for the only fact, and where
    facts were learned together.
    """
    count = len(facts_in(edit))
    if not 0 <= number < count:
        raise EditError(f"The edit has {count} facts; there is no number {number + 1}.")
    left = _without(edit, number)
    if left is None:
        raise EditError("It is the only fact of the edit; nothing would be left.")
    return left


def _requests(record: Record) -> list[dict[str, Any]]:
    if record.get("parts"):
        return [one for part in record["parts"] for one in _requests(part)]
    request = record.get("request")
    return [dict(one) for one in request] if isinstance(request, list) else [dict(request or {})]


def _without(edit: Edit, number: int) -> Edit | None:
    record = edit.record
    if record.get("parts"):
        return _of_parts(edit, number)
    requests = _requests(record)
    if len(requests) == 1:
        return None
    counts, count = record.get("deltas_of"), len(requests)
    if counts is not None and len(counts) == count:
        first, last = _place(counts, number)
        deltas = (*edit.deltas[:first], *edit.deltas[last:])
    elif record.get("ranks_of") == count and all(delta.rank == count for delta in edit.deltas):
        deltas = tuple(_without_rank(delta, number) for delta in edit.deltas)
    else:
        raise EditError(
            f"{str(record.get('method', '?')).capitalize()} learned the {count} facts together, so no part of the edit "
            "is one fact's alone; make the edit again without it."
        )
    return replace(edit, deltas=deltas, record=_shorter(record, number, count))


def _of_parts(edit: Edit, number: int) -> Edit | None:
    """The sum without one fact of one of its parts."""
    parts, counts = list(edit.record["parts"]), edit.record.get("deltas_of")
    if counts is None or len(counts) != len(parts) or edit.prefaces or edit.memories:
        beside = (
            "put texts before prompts" if edit.prefaces else "keep memories beside weights" if edit.memories else ""
        )
        why = beside or "were saved before parts were kept apart"
        raise EditError(f"The parts of this edit {why}; add up the edits that are wanted instead.")
    facts = [len(_requests(part)) for part in parts]
    which = next(index for index, end in enumerate(accumulate(facts)) if number < end)
    first, last = _place(counts, which)
    part = Edit(edit.deltas[first:last], parts[which], edit.norms)
    left = _without(part, number - sum(facts[:which]))
    deltas = (*edit.deltas[:first], *(left.deltas if left else ()), *edit.deltas[last:])
    records = [*parts[:which], *([dict(left.record)] if left else []), *parts[which + 1 :]]
    sizes = [*counts[:which], *([len(left.deltas)] if left else []), *counts[which + 1 :]]
    if not records:
        return None
    record = dict(records[0]) if len(records) == 1 else {**edit.record, "parts": records, "deltas_of": sizes}
    return replace(edit, deltas=deltas, record=record)


def _place(counts: Sequence[int], number: int) -> tuple[int, int]:
    return sum(counts[:number]), sum(counts[: number + 1])


def _without_rank(delta: Delta, number: int) -> Delta:
    kept = [rank for rank in range(delta.rank) if rank != number]
    right = None if delta.right is None else delta.right[kept]
    return replace(
        delta, left=delta.left[:, kept], right=right, units=None if delta.units is None else delta.units[kept]
    )


def _shorter(record: Record, number: int, count: int) -> dict[str, Any]:
    """The record without what it says of one fact."""
    found = {name: value for name, value in record.items() if name != "verdict"}
    for name, value in found.items():
        if isinstance(value, list) and len(value) % count == 0 and name not in _WHOLE:
            each = len(value) // count  # several where an editor reports of several layers
            found[name] = value[: number * each] + value[(number + 1) * each :]
    if "deltas_of" in found:
        found["deltas_of"] = [one for place, one in enumerate(found["deltas_of"]) if place != number]
    if "ranks_of" in found:
        found["ranks_of"] = count - 1
    if count == 2:
        found["request"] = found["request"][0]
    return found
