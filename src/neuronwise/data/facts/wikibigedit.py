"""WikiBigEdit (Thede et al. 2025, arXiv:2503.05683): changes of Wikidata as questions."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.data.facts.fact import FactCase
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import kind_name, present


def is_wikibigedit(fields: Mapping[str, object]) -> bool:
    """Whether a record asks for an update."""
    return {"subject", "update", "ans"} <= fields.keys()


def wikibigedit_case(record: Record, identity: str) -> FactCase:
    """``update`` is the question and ``ans`` its new answer, ``rephrase`` a paraphrase.

    ``personas`` and ``personas_NAME`` are the same question as somebody else would ask it, ``mhop`` with ``mhop_ans``
    one of several hops; ``loc`` with ``loc_ans`` is a question like it about another subject.
    """
    target = record.text("ans")
    true = record.maybe("ground_truth")
    fact = record.fact(record.text("update"), record.text("subject"), target, true[0] if true else None)
    personas = [name for name in record.fields if name.startswith("personas") and record.has(name)]
    portability = {kind_name(name): tuple(record.probes(name, record.fields[name], target)) for name in personas}
    if record.has("mhop"):
        answers = record.text("mhop_ans")
        portability["multi_hop"] = tuple(record.probes("mhop", record.fields["mhop"], answers))
    beside = (
        tuple(record.probes("loc", record.fields["loc"], record.fields.get("loc_ans"))) if record.has("loc") else ()
    )
    return FactCase(identity, fact, record.maybe("rephrase"), present(portability), present({"neighborhood": beside}))


FORM = Form(is_wikibigedit, wikibigedit_case)
