"""What an evaluation is made of: everything that its numbers depend on, as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from neuronwise.data.facts import FactCase, Probe
from neuronwise.errors import StudyError
from neuronwise.model.model import Model
from neuronwise.study.evaluation.editors import Maker
from neuronwise.study.notes import Notes, Row
from neuronwise.study.store import read_before, read_manifest

ONE, SEVERAL = "neuronwise.evaluation/1", "neuronwise.evaluation/2"
EDITORS_OWN = (
    "kind", "title", "editors", "editor", "settings", "changes", "statistics", "asked", "sequential", "batch", "every",
)  # fmt: skip


def plan_of(model: Model, cases: Sequence[FactCase], makers: Mapping[str, Maker], choices: Mapping[str, object]) -> Row:
    """Model, data, editors and choices as plain JSON values.

    The keys of a single editor are beside the others, those of several under ``editors``, by their names.
    """
    content = json.dumps([_plain(case) for case in cases], ensure_ascii=False, sort_keys=True)
    dtypes = dict.fromkeys(str(p.dtype) for p in model.module.parameters())
    editors = {name: _editor(maker) for name, maker in makers.items()}
    only = next(iter(editors.values())) if len(editors) == 1 else None
    values = {
        **({"kind": "evaluation"} if only is None else {}),
        "model": model.source,
        "revision": getattr(model.config, "_commit_hash", None),
        "dtype": ", ".join(dtypes),
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
        "cases": len(cases),
        **({"editors": editors} if only is None else only),
        **choices,
    }
    return json.loads(json.dumps(values, default=str))


def take_over(before: Notes, folder: str, plan: Mapping[str, object]) -> None:
    """Copy the unedited model's answers from another evaluation of the same cases; raises ``StudyError`` otherwise."""
    other = read_manifest(folder)["recipe"]
    names = [name for name in dict.fromkeys([*other, *plan]) if name not in EDITORS_OWN]
    different = next((name for name in names if other.get(name) != plan.get(name)), None)
    if different is not None:
        raise StudyError(f"'{folder}' is an evaluation with another {different}; its answers before do not fit here.")
    for row in read_before(folder).rows:
        if row["part"] != "study":
            before.append(row)


def _editor(maker: Maker) -> Row:
    return {
        "editor": maker.name,
        "settings": None if maker.settings is None else asdict(maker.settings),
        "changes": dict(maker.changes),
        "statistics": None if maker.statistics is None else maker.statistics.record(),
        **({} if maker.asked is None else {"asked": maker.asked}),
    }


def _plain(case: FactCase) -> Row:
    def probes(kinds: Mapping[str, Sequence[Probe]]) -> Row:
        return {kind: [asdict(probe) for probe in found] for kind, found in kinds.items()}

    return {
        "id": case.id,
        "fact": asdict(case.fact),
        "paraphrases": list(case.paraphrases),
        "portability": probes(case.portability),
        "locality": probes(case.locality),
        "generation": list(case.generation),
        **({"also": [asdict(fact) for fact in case.also]} if case.also else {}),
    }
