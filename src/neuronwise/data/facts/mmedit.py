"""MMEdit (Cheng et al. 2023, arXiv:2310.08475) and VLKEB: questions about photos, in zsRE's fields and some more."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.data.facts.fact import Fact, FactCase, Probe
from neuronwise.data.facts.fields import Record, RecordError
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import kind_name, portability_of, present
from neuronwise.data.facts.zsre import true_answer, unrelated


def is_mmedit(fields: Mapping[str, object]) -> bool:
    """Whether a record asks about a photo."""
    return {"src", "alt", "image"} <= fields.keys()


def mmedit_case(record: Record, identity: str) -> FactCase:
    """A question about a photo.

    The subject is in the photo, not in the text: without a field ``subject`` the whole question is the subject.
    ``image_rephrase`` is another photo of the same thing, ``m_loc`` with ``m_loc_q`` and ``m_loc_a`` an unrelated one.
    """
    question, target, true = record.text("src"), record.text("alt"), true_answer(record)
    if record.has("subject"):
        fact = record.fact(question, record.text("subject"), target, true)
    else:
        fact = Fact("{}", question, target, true, str(record.photo("image")))
    portability = about(record, "image_generality", "image_rephrase", question, target)
    asked, answers = record.fields.get("m_loc_q"), record.fields.get("m_loc_a")
    locality = unrelated(record) | about(record, "unrelated_image", "m_loc", asked, answers)
    return FactCase(
        identity, fact, record.maybe("rephrase"), {**portability_of(record), **portability, **_hops(record)}, locality
    )


def _hops(record: Record) -> dict[str, tuple[Probe, ...]]:
    """VLKEB's ``port_new``: questions that need one hop more, by ``port_type`` ("1-hop", …).

    They are about the same photo, or about ``one_hop_img``, which MMKE-Bench has.
    """
    found: dict[str, tuple[Probe, ...]] = {}
    listed = record.fields.get("port_new")
    if not listed:
        return {}
    try:
        photo = record.photo("one_hop_img" if record.has("one_hop_img") else "image")
    except RecordError as error:
        record.notes.append(str(error))
        return {}
    for number, one in enumerate(listed if isinstance(listed, list) else [listed], 1):
        pair = one.get("Q&A") if isinstance(one, Mapping) else None
        if not isinstance(one, Mapping) or not isinstance(pair, Mapping):
            record.notes.append(f"its port_new {number} has no Q&A with Question and Answer.")
            continue
        kind = kind_name(one.get("port_type") or "one_hop")
        made = record.probes(f"port_new {number}", pair.get("Question"), pair.get("Answer"), photo)
        found[kind] = (*found.get(kind, ()), *(probe for probe in made if probe.answers))
    return present(found)


def about(record: Record, kind: str, photo: str, prompt: object, answers: object) -> dict[str, tuple[Probe, ...]]:
    """Probes about another photo; where it is missing they are left out and noted, and the case stays."""
    if not record.has(photo):
        return {}
    try:
        found = tuple(record.probes(photo, prompt, answers, record.photo(photo)))
    except RecordError as error:
        record.notes.append(str(error))
        return {}
    return {kind: found} if found else {}


FORM = Form(is_mmedit, mmedit_case)
