"""The shipped facts: a small set written by hand in KnowEdit's form, of what the built-in text model really knows.

Each record has ``subject``, ``prompt``, ``target_new``, ``ground_truth``, ``rephrase``, ``portability``
(Subject_Aliasing, Reasoning, Logical_Generalization) and ``locality`` (Relation_Specificity, Forgetfulness) as KnowEdit
names them, and beside them ``id``, ``relation`` and the locality kind Neighborhood (other subjects, same relation).
Answers of portability follow from the new target; those of locality are true in the world as it is.

Whether a model knows an answer is not stored: ``benchmarks/known_facts.py`` asks the model.
"""

from __future__ import annotations

import json

from neuronwise.data.benchmarks import SHIPPED_FILE, load_facts
from neuronwise.data.facts import FactCase

PATH = SHIPPED_FILE


def shipped_facts() -> tuple[FactCase, ...]:
    """All shipped facts, in the order of their file."""
    return load_facts(PATH, form="knowedit", strict=True).cases


def shipped_relations() -> dict[str, str]:
    """The relation of each shipped fact by its id, such as ``{"capital-france": "capital"}``."""
    return {record["id"]: record["relation"] for record in json.loads(PATH.read_text(encoding="utf-8"))}
