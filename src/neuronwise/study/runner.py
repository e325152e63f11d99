"""Running a study: case after case, each finished for good, so that a kill loses at most the one in hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.errors import StudyError
from neuronwise.model.model import Model
from neuronwise.model.named import Named
from neuronwise.study.executors import EXECUTORS, Make, Workers
from neuronwise.study.kind import Job, Study, Unit, flat_rows
from neuronwise.study.kinds import KINDS
from neuronwise.study.notes import Notes, Row
from neuronwise.study.progress import Progress, silent
from neuronwise.study.results import concluded, read_study
from neuronwise.study.shards import Shard
from neuronwise.study.store import TABLE, Store

if TYPE_CHECKING:
    from neuronwise.study.recipe_fields import Recipe


def run_study(
    model: Model | Named,
    recipe: Recipe,
    data: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    executor: str = "serial",
    workers: int | Workers | None = None,
    shard: str | None = None,
    progress: Progress = silent,
) -> Study:
    """Every case of ``recipe`` on ``data`` (``recipe.load()``); with ``out`` each finished case is kept in that folder.

    ``executor`` is one of ``EXECUTORS``: it says who measures the cases, and the rows are the same. ``workers``: how
    many, or ``Workers``. All but "serial" open the model by its name, so they take ``Named`` too, and no model is
    opened here. ``shard``: "3/16" measures the third of sixteen parts alone; ``shards.merge`` puts them together.

    The same call on the same folder resumes where it stopped and repeats no finished case. A case that fails (no
    memory, numbers that are not finite, a photo that cannot be read, a worker that dies of it) is kept with its reason,
    and the study continues. Raises ``StudyError`` for a folder of another recipe or other data, one in use, a disk that
    is full (what is finished stays), and for data without a case; ``ModelError`` where workers cannot open the model.
    """
    kind = KINDS[recipe.kind]
    return run_job(partial(_job, recipe, data), model, out, executor, workers, shard, progress, kind.rows)


def _job(recipe: Recipe, data: Any, model: Model) -> Job:
    return KINDS[recipe.kind].job(model, recipe, data)


def run_job(
    make: Make,
    model: Model | Named,
    out: str | os.PathLike[str] | None,
    executor: str = "serial",
    workers: int | Workers | None = None,
    shard: str | None = None,
    progress: Progress = silent,
    rows: Callable[[Row], list[Row]] = flat_rows,
) -> Study:
    """Every case of the job that ``make`` makes for a model; see ``run_study``. ``rows``: of one finished case."""
    chosen = EXECUTORS[executor]
    part = None if shard is None else Shard.parse(shard)
    given = workers if isinstance(workers, Workers) else Workers(workers)
    chosen.require(given)
    with chosen.start(model, make, given) as running:
        about = running.about
        with Store(out, about.schema, about.plan, data=about.source, **({"shard": shard} if shard else {})) as store:
            running.run(store, progress, partial(_of_shard, store.before, part))
            return concluded(store, rows)


def _of_shard(notes: Notes, part: Shard | None, units: Sequence[Unit]) -> Sequence[Unit]:
    if part is None:
        return units
    chosen = part.chosen(units)
    notes.kept("study", "shard", lambda: {"shard": str(part), "ids": [name for unit in chosen for name in unit.cases]})
    return chosen


def resume(
    folder: str | os.PathLike[str],
    load: Callable[[Recipe], Model | Named],
    data: str | os.PathLike[str] | None = None,
    *,
    executor: str = "serial",
    workers: int | Workers | None = None,
    progress: Progress = silent,
) -> Study:
    """Resume the study in ``folder`` by the recipe that it was begun with; ``data`` where the data have moved.

    ``load`` opens the model that a recipe names; the rest is as for ``run_study``.
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
    return run_study(
        load(recipe), recipe, recipe.load(), folder,
        executor=executor, workers=workers, shard=done.manifest.get("shard"), progress=progress,
    )  # fmt: skip
