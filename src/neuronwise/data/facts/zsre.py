"""zsRE as used for MEND and ROME (Levy et al. 2017; Mitchell et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.data.facts.fact import FactCase, Probe
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import locality_of, portability_of, present


def is_zsre(fields: Mapping[str, object]) -> bool:
    """Whether a record has zsRE's fields and no photo."""
    return {"src", "alt"} <= fields.keys() and "image" not in fields


def zsre_case(record: Record, identity: str) -> FactCase:
    """``src`` is the question, ``alt`` the new answer, ``answers`` the true ones, ``loc`` an unrelated question."""
    fact = record.fact(record.text("src"), record.text("subject"), record.text("alt"), true_answer(record))
    paraphrases = record.maybe("rephrase", "rephrase_prompt")
    return FactCase(identity, fact, paraphrases, portability_of(record), unrelated(record))


def true_answer(record: Record) -> str | None:
    """The first true answer; without one, ``pred``: what the model of MEND's authors answered."""
    true = record.maybe("answers") or record.maybe("pred")
    return true[0] if true else None


def unrelated(record: Record) -> dict[str, tuple[Probe, ...]]:
    """The unrelated question ``loc`` with its answer, where there is one, and the field ``locality`` by its kinds."""
    found = tuple(record.probes("loc", record.fields["loc"], record.fields.get("loc_ans"))) if record.has("loc") else ()
    kinds = locality_of(record)
    return present({**kinds, "unrelated": (*kinds.get("unrelated", ()), *found)})


FORM = Form(is_zsre, zsre_case)
