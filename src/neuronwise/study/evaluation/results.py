"""What an evaluation found, one editor at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from neuronwise.errors import StudyError, told
from neuronwise.measure.bootstrap import Mean, mean_interval
from neuronwise.registry.arguments import checked
from neuronwise.study.evaluation.plan import ONE, SEVERAL
from neuronwise.study.evaluation.rows import flat_rows
from neuronwise.study.kind import Study
from neuronwise.study.results import assembled
from neuronwise.study.store import Row, open_cases, read_before, read_manifest


@dataclass(frozen=True)
class Evaluation:
    """``rows``: one for each case, in the order of the cases; ``recipe``: what they were made from.

    ``way``: the rows of edits in a row that were measured on the way too, those after the last edit included.
    """

    recipe: Row
    rows: Sequence[Row] = field(repr=False)
    folder: Path | None = None
    way: Sequence[Row] = field(default=(), repr=False)

    def after(self) -> dict[int, Evaluation]:
        """What was measured on the way, by the number of edits that were in the model."""
        numbers = sorted({row["edits"] for row in self.way})
        return {n: replace(self, rows=[row for row in self.way if row["edits"] == n], way=()) for n in numbers}

    @property
    def failed(self) -> list[Row]:
        """Rows of the cases that could not be edited or measured."""
        return [row for row in self.rows if row["status"] == "failed"]

    def means(self, which: str = "figures") -> dict[str, Mean]:
        """Mean and 95 % interval over cases of each of the "figures" after, "before" or of the "cost"."""
        names = dict.fromkeys(name for row in self.rows for name in row[which])
        found = {name: mean_interval(row[which].get(name) for row in self.rows) for name in names}
        return {name: mean for name, mean in found.items() if mean is not None}


def evaluations(study: Study) -> dict[str, Evaluation]:
    """Each editor's part of a study of the kind "evaluation", as if it had been evaluated alone."""
    recipe = study.recipe
    if "editors" not in recipe:
        return {recipe["editor"]: _of_lines(recipe, study.lines, study.folder)}
    common = {key: value for key, value in recipe.items() if key not in ("kind", "editors")}
    return {
        name: _of_lines({**common, **own}, [line for line in study.lines if line["editor"] == name])
        for name, own in recipe["editors"].items()
    }


def _of_lines(recipe: Row, lines: Sequence[Row], folder: Path | None = None) -> Evaluation:
    rows = [{**line, "id": line["case"]} if "case" in line else line for line in lines]
    way = rows if recipe.get("every") is not None else []
    return Evaluation(recipe, [row for row in rows if row.get("last", True)], folder, way)


def alike(found: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """The editors with the rows of the cases that all of them measured: what is compared has the same cases.

    A case that one editor refuses ("the model says the target already") counts for none. An editor that measured no
    case does not take the others' away.
    """
    done = {name: {row["id"]: row for row in one.rows if row["status"] != "failed"} for name, one in found.items()}
    measured = [rows.keys() for rows in done.values() if rows]
    shared = set[str]().union(*measured).intersection(*measured)
    return {
        name: replace(one, rows=[row for key, row in done[name].items() if key in shared])
        for name, one in found.items()
    }


def differences(one: Evaluation, other: Evaluation, figure: str) -> Mean | None:
    """How much larger a figure is in ``one`` than in ``other``, paired over the cases that both measured."""
    values = {row["id"]: row["figures"][figure] for row in other.rows if figure in row["figures"]}
    return mean_interval(
        row["figures"][figure] - values[row["id"]] if row["id"] in values and figure in row["figures"] else None
        for row in one.rows
    )


def is_evaluation(folder: str | os.PathLike[str]) -> bool:
    """Whether this is a folder of an evaluation."""
    try:
        return read_manifest(folder)["schema"] in (ONE, SEVERAL)
    except StudyError:
        return False


@checked
def read_evaluations(folder: str | os.PathLike[str]) -> dict[str, Evaluation]:
    """What a folder holds of an evaluation, finished or not, by editor; raises ``StudyError`` for any other folder."""
    manifest = read_manifest(folder)
    if manifest["schema"] not in (ONE, SEVERAL):
        raise StudyError(f"'{folder}' holds {manifest['schema']!r}; this version reads {ONE!r} and {SEVERAL!r}.")
    cases, notes = open_cases(folder), read_before(folder)
    with told(StudyError, f"The evaluation in '{folder}' is damaged"):
        return evaluations(assembled(manifest, cases, notes, Path(folder), flat_rows))


@checked
def read_evaluation(folder: str | os.PathLike[str]) -> Evaluation:
    """``read_evaluations`` of a folder with one editor."""
    found = read_evaluations(folder)
    if len(found) > 1:
        raise StudyError(f"'{folder}' holds {len(found)} editors; read it with read_evaluations, or report it.")
    return next(iter(found.values()))
