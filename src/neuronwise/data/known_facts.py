"""Facts that a model was found to know (ROME's ``known_1000``): true answers, and a way to get other ones."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from neuronwise.data.facts import FactCase
from neuronwise.data.fields import Record, RecordError


def is_known_facts(fields: Mapping[str, Any]) -> bool:
    return {"subject", "attribute"} <= fields.keys() and bool({"template", "prompt"} & fields.keys())


def known_facts_case(record: Record, identity: str) -> FactCase:
    """``prompt`` (or ``template`` with the subject filled in) and ``attribute``, its true answer.

    The prompt goes before the template: it is the template and whatever words led the model to the attribute.
    """
    prompt, subject, true = record.text("prompt", "template"), record.text("subject"), record.text("attribute")
    if not record.has("target_new"):
        raise RecordError(
            "no other record of its template or relation has another attribute that could be its new target."
        )
    return FactCase(identity, record.fact(prompt, subject, record.text("target_new"), true))


def with_targets(values: Sequence[Any], seed: int) -> list[Any]:
    """Give each record without a ``target_new`` another record's attribute, chosen by the seed.

    It comes from the records of the same ``template``, or, where all of those have the same attribute, from those of
    the same ``relation_id``; what any record of the file calls true of this subject is not taken. The choice hangs on
    the seed, the subject, the template and the set of candidates alone, not on the order of the file.
    """
    pools: dict[tuple[str, str], set[str]] = defaultdict(set)
    true: dict[str, set[str]] = defaultdict(set)
    for fields in values:
        if _usable(fields):
            for key in _keys(fields):
                pools[key].add(fields["attribute"].strip())
            true[fields["subject"].strip()].add(fields["attribute"].strip().casefold())
    return [_with_target(fields, pools, true, seed) for fields in values]


def _with_target(fields: Any, pools: Mapping[Any, set[str]], true: Mapping[str, set[str]], seed: int) -> Any:
    if not _usable(fields) or fields.get("target_new") is not None:
        return fields
    for key in _keys(fields):
        others = sorted(one for one in pools[key] if one.casefold() not in true[fields["subject"].strip()])
        if others:
            name = "\0".join((str(seed), fields["subject"], fields.get("template") or fields["prompt"]))
            chosen = int(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest(), 16) % len(others)
            return {**fields, "target_new": others[chosen]}
    return fields


def _usable(fields: Any) -> bool:
    return isinstance(fields, Mapping) and all(
        isinstance(fields.get(name), str) and fields[name].strip() for name in ("subject", "attribute")
    )


def _keys(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = ("template", "relation_id")
    return [(name, fields[name].replace("{0}", "{}")) for name in names if isinstance(fields.get(name), str)]
