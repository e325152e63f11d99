"""MMKE-Bench (Du et al. 2025, arXiv:2502.19870): knowledge about what a photo shows, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neuronwise.data.facts.fact import FactCase, Probe
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.mmedit import about, is_mmedit, mmedit_case
from neuronwise.data.facts.probes import present

_NUMBERS = ("", "_1", "_2")  # visual semantics have one question of each kind, entities and users' own things two


def is_mmke(fields: Mapping[str, object]) -> bool:
    """Whether a record asks about a photo and says what kind of knowledge it is."""
    return is_mmedit(fields) and "knowledge_type" in fields


def mmke_case(record: Record, identity: str) -> FactCase:
    """As MMEdit, with questions about the knowledge: portability "text_reliability" and "image_reliability".

    ``rel``, ``rel_1``, ``rel_2`` are asked without a photo; ``m_rel`` and its like about the photo, and again about
    ``image_rephrase`` ("image_generality"), there as ``image_rephrase_question`` where the record has one.
    """
    case = mmedit_case(record, identity)
    found: dict[str, tuple[Probe, ...]] = {"image_generality": case.portability.get("image_generality", ())}
    for number in _NUMBERS:
        asked, answers = _pair(record, f"rel{number}")
        if asked is not None:
            probes = tuple(record.probes(f"rel{number}", asked, answers))
            found["text_reliability"] = (*found.get("text_reliability", ()), *probes)
        asked, answers = _pair(record, f"m_rel{number}")
        if asked is not None:
            photo = record.photo("image")
            probes = tuple(record.probes(f"m_rel{number}", asked, answers, photo))
            found["image_reliability"] = (*found.get("image_reliability", ()), *probes)
            other = record.fields.get("image_rephrase_question") or asked
            again = about(record, "image_generality", "image_rephrase", other, answers)
            found["image_generality"] = (*found["image_generality"], *again.get("image_generality", ()))
    return replace(case, portability={**case.portability, **present(found)})


def _pair(record: Record, name: str) -> tuple[object, object]:
    """A question and its answer, which is called ``rel_ans_1`` or ``rel_1_ans``."""
    if not record.has(name):
        return None, None
    head, _, number = name.rpartition("_")
    numbered = f"{head}_ans_{number}" if number.isdigit() else f"{name}_ans"
    answer = record.fields.get(numbered, record.fields.get(f"{name}_ans"))
    if answer is None:
        record.notes.append(f"its {name} has no {numbered}.")
        return None, None
    return record.fields[name], answer


FORM = Form(is_mmke, mmke_case)
