"""RippleEdits (Cohen et al. 2023, arXiv:2307.12976): what else a change of a fact should change, and what not."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping

from neuronwise.data.facts.fact import FactCase, Probe
from neuronwise.data.facts.fields import Record, RecordError, mapping
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import Kinds, kind_name, present

PORTABLE = ("Logical_Generalization", "Subject_Aliasing", "Compositionality_I", "Compositionality_II")
LOCAL = ("Relation_Specificity", "Relation_Specifity", "Forgetfulness")  # its own example has the second spelling

# A prompt is a relation's phrase with the subject in it, and the target. What is before the subject is the relation's
# name and "of", except for these; behind it is one of a few endings.
_BEFORE = {
    "SEX_OR_GENDER": "gender of", "NATIVE_LANGUAGE": "mother tongue of", "SIBLING": "siblings of",
    "CAST_MEMBER": "cast members of", "CAPITAL": "capital city of", "NUMBER_OF_CHILDREN": "number of children",
    "AWARD_RECEIVED": "award", "MEMBER_OF_SPORTS_TEAM": "sports team which", "LEAGUE": "league which",
    "COUNTRY": "country which", "ETHNIC_GROUP": "ethnic group which", "RELIGION": "religion which",
    "CONTINENT": "continent which", "CAPITAL_OF": "country which", "CURRENCY": "currency in",
    "LIKELY_ANTHEM": "performed in", "POSITION_HELD": "position held by", "FOLLOWS": "", "FOLLOWED_BY": "",
}  # fmt: skip
_AFTER = re.compile(
    r" (?:has is|won is|plays in is|is a member of is|is associated with is|is part of is|is the capital of is"
    r"|is followed by|follows|is|are) "
)


def is_rippleedits(fields: Mapping[str, object]) -> bool:
    """Whether a record has an edit and one of the published criteria."""
    return isinstance(fields.get("edit"), Mapping) and bool({*PORTABLE, *LOCAL} & fields.keys())


def rippleedits_case(record: Record, identity: str) -> FactCase:
    """``edit`` with its ``prompt``, a sentence, and the tests of each criterion.

    The sentence is taken apart by its ``relation``, the labels of its ``target_id`` in the tests and the
    ``original_fact``. Every answer of a test query and every alias counts as right, one of them is enough (the
    published code wants one alias of each answer). ``condition_queries``, what the model should know for a test to
    count, are not read: figures before the edit stand beside those after.
    """
    edit = Record(mapping(record.fields.get("edit"), "edit"), record.images, record.notes)
    criteria = {name: tuple(_queries(record, name)) for name in (*PORTABLE, *LOCAL) if record.has(name)}
    labels = {_label(query, edit) for queries in criteria.values() for query in queries}
    before, subject, after, target = _parts(edit, labels)
    true = _original(edit, f"{before}{subject}{after}")
    fact = edit.fact(f"{before}{{}}{after}", subject, target, true)
    kinds: Kinds = {}
    for name, queries in criteria.items():
        probes = tuple(probe for query in queries for probe in _probes(query, record))
        kinds[kind_name(name).replace("specifity", "specificity")] = probes
    local = {"relation_specificity", "forgetfulness"}
    return FactCase(
        identity,
        fact,
        portability=present({name: found for name, found in kinds.items() if name not in local}),
        locality=present({name: found for name, found in kinds.items() if name in local}),
    )


def _queries(record: Record, criterion: str) -> Iterator[Mapping[str, object]]:
    tests = record.fields[criterion]
    for number, test in enumerate(tests if isinstance(tests, list) else [tests], 1):
        listed = test.get("test_queries") if isinstance(test, Mapping) else None
        if not isinstance(listed, list):
            record.notes.append(f"its {criterion} {number} has no list of test_queries.")
            continue
        for query in listed:
            if isinstance(query, Mapping) and query.get("prompt") is not None and query.get("answers"):
                yield query
            else:
                record.notes.append(f"its {criterion} {number} has a test query without a prompt or answers.")


def _answers(query: Mapping[str, object]) -> list[object]:
    found: list[object] = []
    listed = query["answers"]
    for one in listed if isinstance(listed, list) else [listed]:
        found += [one.get("value"), one.get("aliases") or []] if isinstance(one, Mapping) else [one]
    return found


def _probes(query: Mapping[str, object], record: Record) -> Iterator[Probe]:
    return record.probes("test query", query["prompt"], _answers(query))


def _label(query: Mapping[str, object], edit: Record) -> object:
    """What a query calls the new target, where that is its only answer."""
    new = query.get("target_ids") == [edit.fields.get("target_id")] and query.get("query_type") != "two_hop"
    return _answers(query)[0] if new else None


def _parts(edit: Record, labels: Container[object]) -> tuple[str, str, str, str]:
    """What is before, the subject, what is behind, the target; raises ``RecordError`` for a sentence without them."""
    sentence, relation = edit.text("prompt").removesuffix("."), edit.text("relation")
    words = _BEFORE.get(relation, f"{relation.lower().replace('_', ' ')} of")
    found = re.search(rf"\b{re.escape(words)} " if words else "", sentence)
    if found is None:
        raise RecordError(f"its edit's prompt {sentence!r} does not say {words!r}, as its relation {relation} does.")
    start = found.end()
    ends = [match for match in _AFTER.finditer(sentence, start) if match.start() > start]
    # "is" may be within a name: what the tests call the target decides, then what the sentence before the edit shares.
    named = [match for match in ends if sentence[match.end() :] in labels]
    shared = [match for match in ends if any(one.startswith(sentence[: match.end()]) for one in _before(edit))]
    possible = named or shared or ends
    if not possible:
        raise RecordError(f"its edit's prompt {sentence!r} is not a subject and a target of its relation {relation}.")
    end = possible[-1]
    return sentence[:start], sentence[start : end.start()], sentence[end.start() : end.end() - 1], sentence[end.end() :]


def _before(edit: Record) -> list[str]:
    original = edit.fields.get("original_fact")
    prompt = original.get("prompt") if isinstance(original, Mapping) else None
    return [prompt] if isinstance(prompt, str) else []


def _original(edit: Record, asked: str) -> str | None:
    """The answer before the edit."""
    found = [one.removeprefix(asked).strip().removesuffix(".") for one in _before(edit) if one.startswith(asked)]
    return found[0] if found else None


FORM = Form(is_rippleedits, rippleedits_case)
