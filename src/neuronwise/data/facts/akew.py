"""AKEW (Wu et al. 2024, arXiv:2402.18909): CounterFact, MQuAKE and Wikidata's changes as unstructured facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from neuronwise.data.facts.counterfact import published_case, rewrites, rewritten
from neuronwise.data.facts.fact import FactCase, Probe
from neuronwise.data.facts.fields import Record
from neuronwise.data.facts.form import Form
from neuronwise.data.facts.mquake import is_mquake, mquake_case
from neuronwise.data.facts.probes import present

TEXT, TRIPLETS = "fact_new_uns", ("unsfact_triplets_GPT", "unsfact_triplets")


def is_akew(fields: Mapping[str, object]) -> bool:
    """Whether a record's rewrite has an unstructured fact."""
    rewrite = fields.get("requested_rewrite")
    first = rewrite[0] if isinstance(rewrite, list) and rewrite else rewrite
    return isinstance(first, Mapping) and TEXT in first


def akew_case(record: Record, identity: str) -> FactCase:
    """As CounterFact or MQuAKE, but the new target is the text ``fact_new_uns``.

    ``unsfact_triplets_GPT``, what the text says piece by piece, are portability probes "triplets". The structured
    facts of the same file are read with the form "counterfact" or "mquake".
    """
    case = (mquake_case if is_mquake(record.fields) else published_case)(record, identity)
    asked = rewrites(record)
    facts = [rewritten(rewrite, rewrite.text(TEXT)) for rewrite in asked]
    triplets = present({"triplets": tuple(probe for rewrite in asked for probe in _triplets(rewrite))})
    return replace(case, fact=facts[0], also=tuple(facts[1:]), portability={**case.portability, **triplets})


def _triplets(rewrite: Record) -> tuple[Probe, ...]:
    name = next((name for name in TRIPLETS if rewrite.has(name)), None)
    listed = [] if name is None else rewrite.fields[name]
    found: list[Probe] = []
    for number, triplet in enumerate(listed if isinstance(listed, list) else [listed], 1):
        parts = [triplet.get(part) for part in ("prompt", "subject", "target")] if isinstance(triplet, Mapping) else []
        if not parts or not all(isinstance(part, str) for part in parts):
            rewrite.notes.append(f"its {name} {number} is not a prompt, a subject and a target.")
            continue
        prompt, subject, target = map(str, parts)
        found += rewrite.probes(f"{name} {number}", prompt.replace("{}", subject), target)
    return tuple(found)


FORM = Form(is_akew, akew_case)
