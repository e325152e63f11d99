"""A study's folder, read: its recipe, its rows, what failed, and what was kept beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from neuronwise.errors import StudyError, told
from neuronwise.study.kind import Study, flat_rows
from neuronwise.study.kinds import KINDS
from neuronwise.study.store import Row, read_before, read_cases, read_manifest

SCHEMAS = ("neuronwise.study/1", "neuronwise.evaluation/1", "neuronwise.evaluation/2")


def read_study(folder: str | os.PathLike[str]) -> Study:
    """What a folder holds of a study, also while it is being written; raises ``StudyError`` for any other folder."""
    manifest = read_manifest(folder)
    if manifest["schema"] not in SCHEMAS:
        raise StudyError(f"'{folder}' holds {manifest['schema']!r}; this version reads {', '.join(SCHEMAS)}.")
    kind = kind_of(manifest)
    rows = KINDS[kind].rows if kind in KINDS else flat_rows
    with told(StudyError, f"The study in '{folder}' is damaged"):
        return assembled(manifest, read_cases(folder), read_before(folder), Path(folder), rows)


def kind_of(manifest: Row) -> str:
    """The kind of study that a manifest is of; an evaluation of one editor does not name it."""
    return str(manifest["recipe"].get("kind", "evaluation"))


def assembled(
    manifest: Row,
    cases: Iterable[Row],
    lines: Iterable[Mapping[str, Any]],
    folder: Path | None = None,
    rows: Callable[[Row], list[Row]] = flat_rows,
) -> Study:
    """A study from its finished cases and its notes; cases in their own order, whichever was finished first."""
    notes: dict[str, Row] = {}
    for line in lines:
        if "key" in line:
            notes.setdefault(line["part"], {})[line["key"]] = line["value"]
    listed = notes.get("study", {}).get("cases")
    order = {name: number for number, name in enumerate(listed["ids"])} if listed else {}
    ordered = sorted(cases, key=lambda case: order.get(case["id"], len(order)))
    return Study(
        kind_of(manifest),
        manifest,
        ordered,
        [row for case in ordered for row in rows(case)],
        {case["id"]: case["reason"] for case in ordered if case["status"] == "failed"},
        notes,
        len(order) if listed else None,
        folder,
    )
