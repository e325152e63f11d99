"""Tables of words swapped in captions: what left, what came in, and what that cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.study.kind import Study
from neuronwise.study.rows import Rows, by, mean, where
from neuronwise.study.store import Row

ROLES = {"found_on": "the photos that neurons were found on", "held_out": "held-out photos"}
COLUMNS = ("intervention", "method", "K")


def swap_tables(study: Study) -> list[Table]:
    """None for a study that swaps nothing."""
    rows = [row for row in study.rows if row.get("target") is not None]
    noted = study.notes.get("noted", {})
    return [*(_swapped(rows, role) for role in ROLES), _asked(rows), _moved(rows, noted)]


def _swapped(rows: Rows, role: str) -> Table:
    body: list[list[Cell]] = []
    for key, cell in _cells(rows):
        own, beside = where(cell, role=role), where(cell, role="without")
        if own:
            changed = [mean(own, name) for name in ("swapped", "word_gone", "suppressed", "entered", "retained")]
            length = Estimate.of(mean_interval(map(_relative_length, own)))
            kept = [mean(beside, name) for name in ("unchanged", "retained", "entered")]
            body.append([*_head(key), *changed, length, mean(own, "repeated"), *kept])
    return Table(
        f"swapped-{role}",
        f"What became of the word: {ROLES[role]}",
        (*COLUMNS, "swapped", "word gone", "concept gone", "target came in", "other nouns kept", "length",
         "repeated pairs", "other photos unchanged", "their nouns kept", "target in them"),
        body,
        "Swapped: the caption names the target and no longer the word. Length: words of the caption after, as a share "
        "of those before. Other photos: without the concept, where nothing should change. Means over photos with 95 % "
        "bootstrap intervals.",
    )  # fmt: skip


def _relative_length(row: Row) -> float:
    return len(row["after"].split()) / max(1, len(row["before"].split()))


def _asked(rows: Rows) -> Table:
    """Further prompts about the same photos, whose answers named the word."""
    asked = [row for row in rows if row["role"] == "asked" and row["word"] is not None]
    body: list[list[Cell]] = [
        [*_head(key[:3]), key[3], mean(own, "swapped"), mean(own, "word_gone"), mean(own, "entered"), len(own)]
        for key, own in _cells(asked, "prompt")
    ]
    return Table(
        "swapped-asked",
        "The same photos asked in other ways",
        (*COLUMNS, "prompt", "swapped", "word gone", "target came in", "answers"),
        body,
        "Answers that named the word before the intervention. A prompt with {} was asked without the photo, with the "
        "photo's caption in that place.",
    )


def _moved(rows: Rows, noted: dict[str, Row]) -> Table:
    """How far each swap went."""
    body: list[list[Cell]] = []
    for key, own in _cells(rows):
        notes = [noted[case] for case in by(own, "case") if noted.get(case)]
        if notes:
            body.append(
                [*_head(key), *(mean(notes, name) for name in ("success", "norm", "steps", "enough")), len(notes)]
            )
    return Table(
        "swaps",
        "How far the swaps went",
        (*COLUMNS, "success", "norm of the change", "steps", "neurons that would do", "edits"),
        body,
        "Success: the target's logit is above the word's wherever it was said, and newly generated captions are "
        "swapped. Norm: as a share of the value vectors' norm. Would do: the least "
        "number of the first neurons tried by which the swap succeeds too.",
    )


def _cells(rows: Rows, *more: str) -> Iterator[tuple[Any, Rows]]:
    """Rows by ``COLUMNS`` (and more), one intervention after another."""
    for own in by(rows, "intervention").values():
        yield from by(own, *COLUMNS, *more).items()


def _head(key: tuple[str, str, int | None]) -> list[Cell]:
    intervention, method, count = key
    return [intervention, method, "found" if count is None else str(count)]
