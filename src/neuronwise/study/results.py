"""A study's folder, read: its recipe, its rows, what failed, and what was kept beside them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from neuronwise.errors import StudyError, told
from neuronwise.registry.arguments import checked
from neuronwise.study.cases import Cases, Lazy
from neuronwise.study.kind import Study, flat_rows
from neuronwise.study.kinds import KINDS
from neuronwise.study.notes import Notes, Row
from neuronwise.study.store import Store, open_cases, read_before, read_manifest

SCHEMAS = ("neuronwise.study/1", "neuronwise.evaluation/1", "neuronwise.evaluation/2")


@checked
def read_study(folder: str | os.PathLike[str]) -> Study:
    """What a folder holds of a study, also while it is being written; raises ``StudyError`` for any other folder."""
    manifest = read_manifest(folder)
    if manifest["schema"] not in SCHEMAS:
        raise StudyError(f"'{folder}' holds {manifest['schema']!r}; this version reads {', '.join(SCHEMAS)}.")
    kind = kind_of(manifest)
    rows = KINDS[kind].rows if kind in KINDS else flat_rows
    with told(StudyError, f"The study in '{folder}' is damaged"):
        return assembled(manifest, open_cases(folder), read_before(folder), Path(folder), rows)


def kind_of(manifest: Row) -> str:
    """The kind of study that a manifest is of; an evaluation of one editor does not name it."""
    return str(manifest["recipe"].get("kind", "evaluation"))


def assembled(
    manifest: Row, cases: Cases, notes: Notes, folder: Path | None = None, rows: Callable[[Row], list[Row]] = flat_rows
) -> Study:
    """A study from its finished cases and its notes; cases in their own order, whichever was finished first.

    Each case is looked at here, and read again when its line or rows are first asked for.
    """
    listed = listed_cases(notes)
    ordered = in_order(cases, listed)
    failed: dict[str, str] = {}
    count = 0
    for case in cases.read(ordered):
        count += len(rows(case))
        if case["status"] == "failed":
            failed[case["id"]] = case["reason"]
    return Study(
        kind_of(manifest),
        manifest,
        Lazy(len(ordered), lambda: cases.read(ordered)),
        Lazy(count, lambda: flattened(cases, ordered, rows)),
        failed,
        {part: notes.of(part) for part in dict.fromkeys(row["part"] for row in notes.rows if "key" in row)},
        None if listed is None else len(listed),
        folder,
    )


def concluded(store: Store, rows: Callable[[Row], list[Row]]) -> Study:
    """The study that a store holds, whose table is written."""
    with told(StudyError, "The rows of this study do not make one table"):
        ordered = in_order(store.cases, listed_cases(store.before))
        study = assembled(store.manifest, store.cases, store.before, store.folder, rows)
        store.write_table(lambda: flattened(store.cases, ordered, rows))
    return study


def listed_cases(notes: Notes) -> list[str] | None:
    """The ids of all cases in their order, of a shard its own; None where they are not listed yet."""
    listed = notes.of("study")
    return None if "cases" not in listed else listed.get("shard", listed["cases"])["ids"]


def in_order(cases: Cases, listed: list[str] | None) -> list[str]:
    """The ids of the finished cases, in the order of the list."""
    order = {name: number for number, name in enumerate(listed or ())}
    return sorted(cases, key=lambda name: order.get(name, len(order)))


def flattened(cases: Cases, names: Iterable[str], rows: Callable[[Row], list[Row]]) -> Iterator[Row]:
    """The flat rows of some cases, one after another."""
    return (row for case in cases.read(names) for row in rows(case))
