"""MQuAKE (Zhong et al. 2023, arXiv:2305.14795): facts with questions of several hops that they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neuronwise.data.facts.counterfact import published_case, rewrites
from neuronwise.data.facts.fact import FactCase, Probe
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import present


def is_mquake(fields: Mapping[str, object]) -> bool:
    """Whether a record has a rewrite and questions with a new answer."""
    return {"requested_rewrite", "questions", "new_answer"} <= fields.keys()


def mquake_case(record: Record, identity: str) -> FactCase:
    """CounterFact's ``requested_rewrite``, one or several that are edited together, and what follows from all.

    ``questions`` of several hops are portability probes "multi_hop", answered by ``new_answer`` or one of
    ``new_answer_alias``; ``new_single_hops``, the steps of the way there, are "single_hop". The first rewrite's
    ``question`` is a paraphrase.
    """
    case = published_case(record, identity)
    answers = [record.fields.get(name) for name in ("new_answer", "new_answer_alias") if record.has(name)]
    hops = {
        "multi_hop": tuple(record.probes("questions", record.fields.get("questions"), answers)),
        "single_hop": _steps(record),
    }
    portability = {**case.portability, **present(hops)}
    asked = [rewrite.maybe("question") for rewrite in rewrites(record)]
    return replace(case, paraphrases=(*case.paraphrases, *asked[0]), portability=portability)


def _steps(record: Record) -> tuple[Probe, ...]:
    listed = record.fields.get("new_single_hops") or []
    found: list[Probe] = []
    for number, step in enumerate(listed if isinstance(listed, list) else [listed], 1):
        if not isinstance(step, Mapping) or step.get("question") is None or step.get("answer") is None:
            record.notes.append(f"its new_single_hops {number} has no question with an answer.")
            continue
        answers = [step["answer"], step.get("answer_alias") or []]
        found += record.probes(f"new_single_hops {number}", step["question"], answers)
    return tuple(found)


FORM = Form(is_mquake, mquake_case)
