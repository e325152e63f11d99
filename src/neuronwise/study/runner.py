"""Running a study: case after case, each finished for good, so that a kill loses at most the one in hand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.errors import StudyError
from neuronwise.model.model import Model
from neuronwise.study.kind import Job, Study, flat_rows
from neuronwise.study.kinds import KINDS
from neuronwise.study.progress import Progress, silent
from neuronwise.study.results import assembled, read_study
from neuronwise.study.store import TABLE, Row, Store

if TYPE_CHECKING:
    from neuronwise.study.recipe_fields import Recipe


def run_study(
    model: Model,
    recipe: Recipe,
    data: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
) -> Study:
    """Every case of ``recipe`` on ``data`` (``recipe.load()``); with ``out`` each finished case is kept in that folder.

    The same call on the same folder resumes where it stopped and repeats no finished case. A case that fails (no
    memory, numbers that are not finite, a photo that cannot be read) is kept with its reason, and the study continues.
    Raises ``StudyError`` for a folder of another recipe or other data, one in use, a disk that is full (what is
    finished stays), and for data without a case.
    """
    kind = KINDS[recipe.kind]
    return run_job(kind.job(model, recipe, data), out, progress, kind.rows)


def run_job(
    job: Job,
    out: str | os.PathLike[str] | None,
    progress: Progress = silent,
    rows: Callable[[Row], list[Row]] = flat_rows,
) -> Study:
    """Every case of a job; see ``run_study``. ``rows`` makes the flat rows of one finished case."""
    with Store(out, job.schema, job.plan, data=job.source) as store:
        units = job.begin(store, progress)
        total = sum(map(len, units))
        finished = {line["id"]: line for line in store.cases.rows}
        for unit in units:
            wanted = [case for case in unit if case not in finished]
            if not wanted:
                progress("cases", len(finished), total)
                continue
            with contextlib.closing(job.measure(unit, wanted)) as lines:
                for line in lines:
                    store.cases.append(line)
                    finished[line["id"]] = line
                    progress("cases", len(finished), total)
        study = assembled(store.manifest, finished.values(), store.before.rows, store.folder, rows)
        store.write_table(study.rows)
        return study


def resume(
    folder: str | os.PathLike[str],
    load: Callable[[Recipe], Model],
    data: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
) -> Study:
    """Resume the study in ``folder`` by the recipe that it was begun with; ``data`` where the data have moved.

    ``load`` opens the model that a recipe names. Raises as ``run_study`` does.
    """
    from neuronwise.study.recipe_file import make_recipe

    done = read_study(folder)
    if done.finished and (done.folder or Path()).joinpath(TABLE).is_file():
        return done
    try:
        keys, where = KINDS[done.kind].recipe.resumed(done.manifest)
    except (KeyError, TypeError) as error:
        raise StudyError(f"The manifest of '{folder}' is damaged; name a new folder.") from error
    recipe = make_recipe(keys, f"{folder}/manifest.json").at(os.fspath(data or where))
    return run_study(load(recipe), recipe, recipe.load(), folder, progress=progress)
