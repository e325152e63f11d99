"""CounterFact (Meng et al. 2022, arXiv:2202.05262): as published with ROME, and in EasyEdit's flat names."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.data.facts.fact import Fact, FactCase, Probe
from neuronwise.data.facts.fields import Record, RecordError, mapping
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import locality_of, portability_of, present


def is_counterfact(fields: Mapping[str, object]) -> bool:
    """Whether a record has the published fields, or the flat ones."""
    return "requested_rewrite" in fields or {"prompt", "target_new", "subject"} <= fields.keys()


def counterfact_case(record: Record, identity: str) -> FactCase:
    """One record with ``requested_rewrite``, or one with ``prompt``, ``subject``, ``target_new`` side by side."""
    return published_case(record, identity) if record.has("requested_rewrite") else _flat(record, identity)


def published_case(record: Record, identity: str) -> FactCase:
    """``neighborhood_prompts`` are answered by the old target, ``attribute_prompts`` by the new one; both stay."""
    inner, *more = rewrites(record)
    fact = rewritten(inner)
    locality = {
        "neighborhood": _asked(record, "neighborhood_prompts", tuple(_true(inner))),
        "attribute": _asked(record, "attribute_prompts", (fact.target_new,)),
    }
    return FactCase(
        identity,
        fact,
        record.maybe("paraphrase_prompts"),
        portability_of(record),
        present({**locality_of(record), **present(locality)}),
        generation=record.maybe("generation_prompts"),
        also=tuple(map(rewritten, more)),
    )


def rewrites(record: Record) -> list[Record]:
    """The fields of ``requested_rewrite``, one or a list of them."""
    found = record.fields.get("requested_rewrite")
    listed = found if isinstance(found, list) else [found]
    if not listed:
        raise RecordError("its requested_rewrite is an empty list.")
    return [Record(mapping(one, "requested_rewrite"), record.images, record.notes) for one in listed]


def rewritten(rewrite: Record, target: str | None = None) -> Fact:
    """The fact that a rewrite asks for, with ``target`` in place of its own new one."""
    new = rewrite.fields.get("target_new")
    if target is None:
        target = (
            Record(mapping(new, "target_new")).text("str") if isinstance(new, Mapping) else rewrite.text("target_new")
        )
    true = _true(rewrite)
    return rewrite.fact(rewrite.text("prompt"), rewrite.text("subject"), target, true[0] if true else None)


def _true(rewrite: Record) -> list[str]:
    old = rewrite.fields.get("target_true")
    return [] if old is None else rewrite.texts("target_true", old.get("str") if isinstance(old, Mapping) else old)


def _asked(record: Record, name: str, answers: tuple[str, ...]) -> tuple[Probe, ...]:
    asked = record.fields.get(name) or []
    found = []
    for one in asked if isinstance(asked, list) else [asked]:
        if isinstance(one, Mapping):  # some copies give the answer with each prompt
            found += record.probes(name, one.get("prompt"), one.get("target"))
        else:
            found += record.probes(name, one, list(answers))
    return tuple(found)


def _flat(record: Record, identity: str) -> FactCase:
    true = record.maybe("ground_truth", "target_true")
    fact = record.fact(
        record.text("prompt"), record.text("subject"), record.text("target_new"), true[0] if true else None
    )
    paraphrases = record.maybe("rephrase_prompt", "rephrase_prompts", "rephrase")
    return FactCase(identity, fact, paraphrases, portability_of(record), locality_of(record))


FORM = Form(is_counterfact, counterfact_case)
