"""KnowEdit (Zhang et al. 2024, arXiv:2401.01286): WikiData counterfact and recent, ZsRE and WikiBio in its form."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.data.facts.fact import FactCase
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.probes import locality_of, portability_of


def is_knowedit(fields: Mapping[str, object]) -> bool:
    """Whether a record has KnowEdit's fields, or those that WikiBio has in their place."""
    wikibio = {"text", "labels", "concept"} <= fields.keys()
    flat = {"prompt", "target_new"} <= fields.keys()
    return wikibio or (flat and bool({"portability", "locality", "rephrase"} & fields.keys()))


def knowedit_case(record: Record, identity: str) -> FactCase:
    """``prompt``, ``subject``, ``target_new`` with ``portability`` and ``locality`` probes by their kinds.

    WikiBio calls the first three ``text``, ``concept`` and ``labels``. An answer is a text, a list, or a list of
    answers each with its aliases: all count as right. A portability probe without an answer is left out and noted;
    one of locality stays, since what the model says before the edit can be kept without knowing what is right.
    """
    true = record.maybe("ground_truth")
    fact = record.fact(
        record.text("prompt", "text"),
        record.text("subject", "concept"),
        record.text("target_new", "labels"),
        true[0] if true else None,
    )
    return FactCase(
        identity,
        fact,
        record.maybe("rephrase", "rephrase_prompt", "rephrase_prompts"),
        portability_of(record),
        locality_of(record),
    )


FORM = Form(is_knowedit, knowedit_case)
