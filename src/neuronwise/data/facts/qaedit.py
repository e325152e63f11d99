"""QAEdit (Yang et al. 2025, "The Mirage of Model Editing", arXiv:2502.11177): questions of three QA datasets."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.data.facts.fact import FactCase, Probe
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import present


def is_qaedit(fields: Mapping[str, object]) -> bool:
    """Whether a record has a prompt, a subject and a ``target`` of that name."""
    return {"prompt", "subject", "target"} <= fields.keys() and "target_new" not in fields


def qaedit_case(record: Record, identity: str) -> FactCase:
    """``prompt`` and ``target``, ``rephrase``, and ``locality``: a list of unrelated questions ``loc``, ``loc_ans``."""
    fact = record.fact(record.text("prompt"), record.text("subject"), record.text("target"), None)
    return FactCase(identity, fact, record.maybe("rephrase"), locality=present({"unrelated": _unrelated(record)}))


def _unrelated(record: Record) -> tuple[Probe, ...]:
    listed = record.fields.get("locality") or []
    found: list[Probe] = []
    for number, one in enumerate(listed if isinstance(listed, list) else [listed], 1):
        if not isinstance(one, Mapping) or one.get("loc") is None:
            record.notes.append(f"its locality {number} has no question 'loc'.")
            continue
        found += record.probes(f"locality {number}", one["loc"], one.get("loc_ans"))
    return tuple(found)


FORM = Form(is_qaedit, qaedit_case)
