"""A question and its answer."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.data.facts.fact import FactCase
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form


def is_pair(fields: Mapping[str, object]) -> bool:
    """Whether a record has these fields."""
    return {"ask", "about", "answer"} <= fields.keys()


def pair_case(record: Record, identity: str) -> FactCase:
    """``ask`` is the prompt, ``about`` the subject, ``answer`` the new target, ``again`` a paraphrase."""
    fact = record.fact(record.text("ask"), record.text("about"), record.text("answer"), None)
    return FactCase(identity, fact, record.maybe("again"))


FORM = Form(is_pair, pair_case)
