"""UnKEBench (Deng et al. 2024, arXiv:2405.15349): questions that are answered by a paragraph."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.data.facts.fact import Fact, FactCase, Probe
from neuronwise.data.facts.fields import Record, RecordError
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import present


def is_unke(fields: Mapping[str, object]) -> bool:
    """Whether a record has a question and an answer, with a paraphrase or questions about parts of the answer."""
    return {"question", "answer"} <= fields.keys() and bool({"para_question", "sub_question"} & fields.keys())


def unke_case(record: Record, identity: str) -> FactCase:
    """``question`` and its long ``answer``, ``para_question``, and portability "sub_question": parts of the answer.

    The published records do not say what a question is about: without a field ``subject`` the whole question is the
    subject.
    """
    question, answer = record.text("question"), record.text("answer")
    if record.has("subject"):
        fact = record.fact(question, record.text("subject"), answer, None)
    else:
        fact = Fact("{}", question, answer)
    parts = present({"sub_question": _parts(record)})
    return FactCase(identity, fact, record.maybe("para_question"), parts)


def _parts(record: Record) -> tuple[Probe, ...]:
    asked, answers = record.fields.get("sub_question") or [], record.fields.get("sub_answer") or []
    asked = asked if isinstance(asked, list) else [asked]
    answers = answers if isinstance(answers, list) else [answers]
    if len(asked) != len(answers):
        raise RecordError(f"its sub_question has {len(asked)} questions and its sub_answer {len(answers)} answers.")
    pairs = enumerate(zip(asked, answers, strict=True), 1)
    return tuple(probe for number, pair in pairs for probe in record.probes(f"sub_question {number}", *pair))


FORM = Form(is_unke, unke_case)
