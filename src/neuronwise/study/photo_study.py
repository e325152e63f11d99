"""A study of photos: its cases and how one is measured are functions of a workspace."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from neuronwise.data.photos import Photos
from neuronwise.drawing.style import Figure
from neuronwise.drawing.tables import Table
from neuronwise.errors import NonFiniteError, NothingToStudy, StudyError
from neuronwise.model.model import Model
from neuronwise.model.sample import seeded
from neuronwise.study.failures import FAILURES, reason, reasons_of
from neuronwise.study.kind import SCHEMA, Case, Kind, Study, Unit
from neuronwise.study.notes import Notes, Row
from neuronwise.study.progress import Progress
from neuronwise.study.recipe_fields import PhotoRecipe
from neuronwise.study.workspace import Workspace

P = TypeVar("P", bound=PhotoRecipe)
Cases = Callable[[Workspace[P]], Sequence[Case]]
Measure = Callable[[Workspace[P], Case], Sequence[Row]]


def photo_kind(
    name: str,
    recipe: type[P],
    cases: Cases[P],
    measure: Measure[P],
    tables: Callable[[Study], list[Table]],
    figures: Callable[[Study], list[Figure]],
    *,
    title: str,
    sentence: str,
) -> Kind[P]:
    """A kind of study whose cases are measured one by one on photos; see ``kind``."""

    def job(model: Model, keys: P, photos: Photos) -> PhotoJob[P]:
        return PhotoJob(model, keys, photos, cases, measure)

    return Kind(name, recipe, job, tables, figures, title, sentence)


class PhotoJob(Generic[P]):
    """One study of photos that is about to run."""

    schema = SCHEMA

    def __init__(self, model: Model, recipe: P, photos: Photos, cases: Cases[P], measure: Measure[P]) -> None:
        if recipe.data.limit is not None:
            photos = Photos(photos.photos[: recipe.data.limit], photos.problems, photos.source)
        self._made = model, recipe, photos
        self._list, self._measure_case = cases, measure
        folder = recipe.data.folder or photos.source
        folder = os.path.abspath(folder) if folder else ""
        self.source: Mapping[str, object] = {"folder": folder, "photos": len(photos), "problems": list(photos.problems)}
        self.plan: Mapping[str, object] = _plan(model, recipe, photos)

    def begin(self, notes: Notes, folder: Path | None, tell: Progress) -> list[Unit]:
        """Caption all photos and list the cases, noted so that a report knows how many there are."""
        self._workspace = Workspace(*self._made, notes=notes, folder=folder, tell=tell)
        listed = list(self._list(self._workspace))
        self._cases = {case.id: case for case in listed}
        ids = [case.id for case in listed]
        if len(self._cases) < len(listed):
            twice = next(name for name, count in Counter(ids).items() if count > 1)
            raise StudyError(f"Two cases of this study have the id {twice!r}; each needs its own.")
        skipped, unread = self._workspace.skipped, self._workspace.unread
        if not ids:
            why = reasons_of(skipped) or "its kind made none of these photos"
            raise NothingToStudy(f"This study has no case ({why}).")
        self._workspace.kept("study", "cases", lambda: {"ids": ids, "skipped": skipped, "unread": unread})
        return [Unit((case.id,), case.route) for case in listed]

    def measure(self, unit: Unit, wanted: Sequence[str]) -> Generator[Row, None, None]:
        """The lines of cases, finished or failed."""
        for name in wanted:
            yield self._line(self._cases[name])

    def failed(self, name: str, reason: str) -> Row:
        """The line of a case that could not be measured."""
        return _line(self._cases[name], [], reason, 0.0)

    def _line(self, case: Case) -> Row:
        start = time.perf_counter()
        rows: Sequence[Row] = []
        failed = None
        try:
            # What is drawn without its own seed is the same after a resumption.
            with seeded(self._workspace.model, self._workspace.recipe.seed):
                rows = self._measure_case(self._workspace, case)
            _require_plain(rows)
        except StudyError:
            raise  # the folder cannot be written: no failure of this case
        except FAILURES as error:
            rows, failed = [], reason(error)
        return _line(case, rows, failed, time.perf_counter() - start)


def _line(case: Case, rows: Sequence[Row], failed: str | None, seconds: float) -> Row:
    return {
        "id": case.id,
        "status": "done" if failed is None else "failed",
        "reason": failed,
        "inputs": dict(case.inputs),
        "rows": [dict(row) for row in rows],
        "seconds": seconds,
    }


def _plan(model: Model, recipe: PhotoRecipe, photos: Photos) -> Row:
    """Everything that the numbers depend on, as plain values. The photos' folder is not part of it."""
    keys = recipe.model_dump(mode="json")
    keys["data"] = {key: value for key, value in keys["data"].items() if key != "folder"}
    return {
        **keys,
        "revision": getattr(model.config, "_commit_hash", None),
        "weights_dtype": ", ".join(dict.fromkeys(str(p.dtype) for p in model.module.parameters())),
        "sha256": photos.digest,
    }


def _require_plain(rows: Sequence[Mapping[str, object]]) -> None:
    for row in rows:
        for column, value in row.items():
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    raise NonFiniteError(f"{column} is {number}; figures must be finite.")
    json.dumps(list(rows), allow_nan=False)
