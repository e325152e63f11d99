"""A study's folder, read: its recipe, its rows, what failed, and what was kept beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuronwise.errors import StudyError
from neuronwise.files import parsed
from neuronwise.study.store import BEFORE, read_cases, read_manifest

SCHEMA = "neuronwise.study/1"


@dataclass(frozen=True)
class Study:
    """A study, finished or not.

    ``rows``: all rows of all finished cases, flat, in the order of the cases; each begins with ``case`` (its id) and
    the case's inputs and ends with ``seconds`` (of the whole case). ``failed``: id → reason. ``notes``: part → key →
    value, such as ``notes["found"]["dog/two_stage"]``. ``total``: how many cases there are, None when that was not yet
    known. ``manifest``: recipe, versions, source of the data.
    """

    kind: str
    manifest: Mapping[str, Any] = field(repr=False)
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    failed: Mapping[str, str]
    notes: Mapping[str, Mapping[str, Any]] = field(repr=False)
    cases: int
    total: int | None
    folder: Path | None = None

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe's keys, with ``revision``, ``weights_dtype`` and ``sha256`` of the data."""
        return self.manifest["recipe"]

    @property
    def finished(self) -> bool:
        return self.cases == self.total

    @property
    def skipped(self) -> Mapping[str, str]:
        """Why concepts and photos were left out."""
        about = self.notes.get("study", {}).get("cases", {})
        return {**about.get("skipped", {}), **about.get("unread", {})}


def is_study(folder: str | os.PathLike[str]) -> bool:
    """Whether this is a folder that a study made."""
    try:
        return read_manifest(folder)["schema"] == SCHEMA
    except StudyError:
        return False


def read_study(folder: str | os.PathLike[str]) -> Study:
    """What a folder holds of a study, also while it is being written; raises ``StudyError`` for one that is none."""
    manifest = read_manifest(folder)
    if manifest["schema"] != SCHEMA:
        raise StudyError(f"'{folder}' holds {manifest['schema']!r}; this version reads {SCHEMA!r}.")
    path = Path(folder) / BEFORE
    try:
        lines, _ = parsed(path.read_bytes(), path)
    except OSError as error:
        raise StudyError(f"'{path}' cannot be read: {error.strerror}.") from error
    return assembled(manifest, read_cases(folder), lines, Path(folder))


def assembled(
    manifest: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
    folder: Path | None = None,
) -> Study:
    """A study from its finished cases and its notes; cases in their own order, whichever was finished first."""
    notes: dict[str, dict[str, Any]] = {}
    for line in lines:
        notes.setdefault(line["part"], {})[line["key"]] = line["value"]
    listed = notes.get("study", {}).get("cases")
    order = {name: number for number, name in enumerate(listed["ids"])} if listed else {}
    ordered = sorted(cases, key=lambda case: order.get(case["id"], len(order)))
    return Study(
        manifest["recipe"]["kind"],
        manifest,
        [row for case in ordered for row in flat_rows(case)],
        {case["id"]: case["reason"] for case in ordered if case["status"] == "failed"},
        notes,
        len(ordered),
        len(order) if listed else None,
        folder,
    )


def flat_rows(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one finished case; a failed one has none."""
    return [{"case": case["id"], **case["inputs"], **row, "seconds": case["seconds"]} for row in case["rows"]]
