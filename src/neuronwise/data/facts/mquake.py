"""MQuAKE (Zhong et al. 2023, arXiv:2305.14795): facts with questions of several hops that they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neuronwise.data.facts.counterfact import published_case
from neuronwise.data.facts.fact import FactCase
from neuronwise.data.facts.fields import Record, mapping
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import present


def is_mquake(fields: Mapping[str, object]) -> bool:
    """Whether a record has a rewrite and questions with a new answer."""
    return {"requested_rewrite", "questions", "new_answer"} <= fields.keys()


def mquake_case(record: Record, identity: str) -> FactCase:
    """CounterFact's ``requested_rewrite`` (one; its ``question`` is a paraphrase), and ``questions`` of several hops.

    Each of these is a portability probe "multi_hop", answered by ``new_answer`` or one of ``new_answer_alias``.
    """
    case = published_case(record, identity)
    rewrite = record.fields.get("requested_rewrite")
    rewrite = mapping(rewrite[0] if isinstance(rewrite, list) else rewrite, "requested_rewrite")
    inner = Record(rewrite, notes=record.notes)
    answers = [record.fields.get(name) for name in ("new_answer", "new_answer_alias") if record.has(name)]
    hops = {"multi_hop": tuple(record.probes("questions", record.fields.get("questions"), answers))}
    portability = {**case.portability, **present(hops)}
    return replace(case, paraphrases=(*case.paraphrases, *inner.maybe("question")), portability=portability)


FORM = Form(is_mquake, mquake_case)
