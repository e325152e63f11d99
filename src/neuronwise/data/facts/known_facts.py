"""Facts that a model was found to know (ROME's ``known_1000``): true answers, and a way to get new targets."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from neuronwise.data.facts.fact import FactCase
from neuronwise.data.facts.fields import Record, RecordError
from neuronwise.data.facts.form import Form


def is_known_facts(fields: Mapping[str, object]) -> bool:
    """Whether a record has a subject, an attribute, and a template or prompt."""
    return {"subject", "attribute"} <= fields.keys() and bool({"template", "prompt"} & fields.keys())


def known_facts_case(record: Record, identity: str) -> FactCase:
    """``prompt`` (or ``template`` with the subject filled in) and ``attribute``, its true answer.

    The prompt goes before the template: it is the template and whatever words led the model to the attribute.
    """
    record.has("template")  # ``with_targets`` has read it
    prompt, subject, true = record.text("prompt", "template"), record.text("subject"), record.text("attribute")
    if not record.has("target_new"):
        raise RecordError(
            "no other record of its template or relation has another attribute that could be its new target."
        )
    return FactCase(identity, record.fact(prompt, subject, record.text("target_new"), true))


def with_targets(values: Sequence[object], seed: int) -> list[object]:
    """Give each record without a ``target_new`` another record's attribute, chosen by the seed.

    It comes from the records of the same ``template``, or, where all of those have the same attribute, from those of
    the same ``relation_id``; what any record of the file calls true of this subject is not taken. The choice depends
    on the seed, the subject, the template and the set of candidates alone, not on the order of the file.
    """
    pools: dict[tuple[str, str], set[str]] = defaultdict(set)
    true: dict[str, set[str]] = defaultdict(set)
    for fields in values:
        if isinstance(fields, Mapping) and (known := _known(fields)):
            subject, attribute = known
            true[subject].add(attribute.casefold())
            for key in _keys(fields):
                pools[key].add(attribute)

    def completed(fields: object) -> object:
        known = _known(fields) if isinstance(fields, Mapping) else None
        if not isinstance(fields, Mapping) or known is None or fields.get("target_new") is not None:
            return fields
        for key in _keys(fields):
            others = sorted(one for one in pools[key] if one.casefold() not in true[known[0]])
            if others:
                return {**fields, "target_new": _chosen(others, (seed, fields["subject"], _wording(fields)))}
        return fields

    return [completed(fields) for fields in values]


def _chosen(among: Sequence[str], by: Iterable[object]) -> str:
    digest = hashlib.sha256("\0".join(map(str, by)).encode("utf-8", "surrogatepass")).hexdigest()
    return among[int(digest, 16) % len(among)]


def _wording(fields: Mapping[str, object]) -> object:
    return fields.get("template") or fields["prompt"]


def _known(fields: Mapping[str, object]) -> tuple[str, str] | None:
    """Subject and attribute, where both are texts that hold something."""
    subject, attribute = fields.get("subject"), fields.get("attribute")
    if isinstance(subject, str) and isinstance(attribute, str) and subject.strip() and attribute.strip():
        return subject.strip(), attribute.strip()
    return None


def _keys(fields: Mapping[str, object]) -> list[tuple[str, str]]:
    """The groups of records that share attributes with this one, the closest first."""
    named = ((name, fields.get(name)) for name in ("template", "relation_id"))
    return [(name, value.replace("{0}", "{}")) for name, value in named if isinstance(value, str)]


FORM = Form(is_known_facts, known_facts_case, with_targets)
