"""zsRE as used for MEND and ROME (Levy et al. 2017; Mitchell et al. 2022), and MMEdit's records that add a photo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuronwise.data.facts import Fact, FactCase, Probe
from neuronwise.data.fields import Record
from neuronwise.errors import NeuronwiseError


def is_zsre(fields: Mapping[str, Any]) -> bool:
    return {"src", "alt"} <= fields.keys() and "image" not in fields


def is_mmedit(fields: Mapping[str, Any]) -> bool:
    return {"src", "alt", "image"} <= fields.keys()


def zsre_case(record: Record, identity: str) -> FactCase:
    """``src`` is the question, ``alt`` the new answer, ``answers`` the true ones, ``loc`` an unrelated question.

    ``pred`` is what the model of MEND's authors said; it stands in for the true answer where there is none.
    """
    true = record.maybe("answers") or record.maybe("pred")
    fact = record.fact(record.text("src"), record.text("subject"), record.text("alt"), true[0] if true else None)
    return FactCase(identity, fact, record.maybe("rephrase", "rephrase_prompt"), locality=_unrelated(record))


def mmedit_case(record: Record, identity: str) -> FactCase:
    """A question about a photo (MMEdit, Cheng et al. 2023, arXiv:2310.08475; also VLKEB's records).

    The subject is on the photo and not in the text: without a field ``subject`` the whole question stands for it.
    ``image_rephrase`` is another photo of the same thing, ``m_loc`` with ``m_loc_q`` and ``m_loc_a`` an unrelated one.
    """
    question, target = record.text("src"), record.text("alt")
    true = record.maybe("answers") or record.maybe("pred")
    answer = true[0] if true else None
    if record.has("subject"):
        fact = record.fact(question, record.text("subject"), target, answer)
    else:
        fact = Fact("{}", question, target, answer, str(record.photo("image")))
    portability: dict[str, tuple[Probe, ...]] = {}
    locality = _unrelated(record)
    if record.has("image_rephrase"):
        portability = _with_photo(record, "image_generality", "image_rephrase", question, target)
    if record.has("m_loc"):
        asked, answers = record.fields.get("m_loc_q"), record.fields.get("m_loc_a")
        locality |= _with_photo(record, "unrelated_image", "m_loc", asked, answers)
    return FactCase(identity, fact, record.maybe("rephrase"), portability, locality)


def _unrelated(record: Record) -> dict[str, tuple[Probe, ...]]:
    if not record.has("loc"):
        return {}
    found = tuple(record.probes("loc", record.fields["loc"], record.fields.get("loc_ans")))
    return {"unrelated": found} if found else {}


def _with_photo(record: Record, kind: str, photo: str, prompt: Any, answers: Any) -> dict[str, tuple[Probe, ...]]:
    """Probes about another photo; where it is missing they are left out and noted, and the case stands."""
    try:
        found = tuple(record.probes(photo, prompt, answers, record.photo(photo)))
    except NeuronwiseError as error:
        record.notes.append(str(error))
        return {}
    return {kind: found} if found else {}
