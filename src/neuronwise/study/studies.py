"""Running a study: case after case, each finished for good, so that a kill loses at most the one in hand."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from neuronwise.data.photos import Photos, load_photos
from neuronwise.errors import NonFiniteError, NothingToStudy, StudyError
from neuronwise.model.model import Model
from neuronwise.study.before import Progress, silent
from neuronwise.study.bench import Bench
from neuronwise.study.failures import FAILURES, reason
from neuronwise.study.keys import Recipe
from neuronwise.study.kind import Case, Kind
from neuronwise.study.kinds import KINDS
from neuronwise.study.results import SCHEMA, Study, assembled, read_study
from neuronwise.study.store import TABLE, Store, read_manifest, versions
from neuronwise.study.written import make_recipe


def run_study(
    model: Model,
    recipe: Recipe,
    photos: Photos,
    out: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
) -> Study:
    """Every case of ``recipe`` on ``photos``; with ``out`` each finished case is kept in that folder.

    The same call on the same folder goes on where it stopped and repeats no finished case. A case that fails (no
    memory, numbers that are not finite, a photo that cannot be read) is kept with its reason, and the study goes on.
    Raises ``StudyError`` for a folder of another recipe or other data, one in use, a disk that is full (what is
    finished stays), and for photos that show none of the concepts.
    """
    kind = KINDS[recipe.kind]
    photos = _limited(photos, recipe)
    plan = _plan(model, recipe, photos)
    folder = os.path.abspath(recipe.data.folder or photos.source)
    source = {"folder": folder, "photos": len(photos), "problems": list(photos.problems)}
    with _opened(out, plan, data=source) as store:
        bench = Bench(
            model, recipe, photos, notes=None if store is None else store.before,
            folder=None if store is None else store.folder, tell=progress,
        )  # fmt: skip
        cases = _cases(kind, bench)
        finished = {} if store is None else {row["id"]: row for row in store.cases.rows}
        for case in cases:
            if case.id not in finished:
                row = _measured(kind, bench, case)
                if store is not None:
                    store.cases.append(row)
                finished[case.id] = row
            progress("cases", len(finished), len(cases))
        manifest = {"recipe": plan, "data": source, "versions": versions()}
        lines = bench.notes() if store is None else store.before.rows
        found = assembled(
            manifest if store is None else read_manifest(store.folder), list(finished.values()), lines,
            None if store is None else store.folder,
        )  # fmt: skip
        if store is not None:
            store.write_table(found.rows)
        return found


def resume(
    folder: str | os.PathLike[str],
    load: Callable[[Recipe], Model],
    data: str | os.PathLike[str] | None = None,
    *,
    progress: Progress = silent,
) -> Study:
    """Go on with the study in ``folder``, by the recipe that it was begun with; ``data`` where the photos have moved.

    ``load`` opens the model that a recipe names. Raises as ``run_study`` does.
    """
    manifest = read_manifest(folder)
    if manifest["schema"] != SCHEMA:
        raise StudyError(f"'{folder}' holds {manifest['schema']!r}; only {SCHEMA!r} is gone on with here.")
    try:
        where, keys = data or manifest["data"]["folder"], manifest["recipe"]
    except (KeyError, TypeError) as error:
        raise StudyError(f"The manifest of '{folder}' is damaged; name a new folder.") from error
    done = read_study(folder)
    if done.finished and (done.folder or Path()).joinpath(TABLE).is_file():
        return done
    recipe = make_recipe({key: value for key, value in keys.items() if key not in _OURS}, f"{folder}/manifest.json")
    photos = load_photos(_beside(Path(where), recipe.data.part), recipe.data.part)
    return run_study(load(recipe), recipe, photos, folder, progress=progress)


def _beside(folder: Path, part: str | None) -> Path:
    """COCO's folder, also when that of one of its parts is named."""
    named = part is not None and folder.name == part and not (folder / "annotations").is_dir()
    return folder.parent if named else folder


_OURS = ("revision", "weights_dtype", "sha256")  # of the plan, beyond the recipe's own keys


def _plan(model: Model, recipe: Recipe, photos: Photos) -> dict[str, Any]:
    """Everything that the numbers hang on, as plain values. Where the photos lie is not among it."""
    keys = recipe.model_dump(mode="json")
    keys["data"] = {key: value for key, value in keys["data"].items() if key != "folder"}
    return {
        **keys,
        "revision": getattr(model.config, "_commit_hash", None),
        "weights_dtype": ", ".join(dict.fromkeys(str(p.dtype) for p in model.module.parameters())),
        "sha256": photos.digest,
    }


def _limited(photos: Photos, recipe: Recipe) -> Photos:
    if recipe.data.limit is None:
        return photos
    return Photos(photos.photos[: recipe.data.limit], photos.problems, photos.source)


def _cases(kind: Kind, bench: Bench) -> list[Case]:
    """The cases in order, noted so that a report knows how many there are."""
    cases = list(kind.cases(bench))
    ids = [case.id for case in cases]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise StudyError(f"Two cases of this study have the id {twice!r}; each needs its own.")
    if not ids:
        why = "; ".join(f"{name}: {reason}" for name, reason in bench.skipped.items())
        raise NothingToStudy(f"This study has no case ({why or 'its kind made none of these photos'}).")
    about = {"ids": ids, "skipped": bench.skipped, "unread": bench.unread}
    bench.kept("study", "cases", lambda: about)
    return cases


def _measured(kind: Kind, bench: Bench, case: Case) -> dict[str, Any]:
    """The line of one case, finished or failed."""
    start = time.perf_counter()
    rows: Sequence[Mapping[str, Any]] = []
    failed = None
    try:
        # Whatever is drawn outside of a seed of its own is the same in a study that was resumed.
        with torch.random.fork_rng():
            torch.manual_seed(bench.recipe.seed)
            rows = kind.measure(bench, case)
        _require_plain(rows)
    except StudyError:
        raise  # the folder cannot be written: no failure of this case
    except FAILURES as error:
        rows, failed = [], reason(error)
    return {
        "id": case.id,
        "status": "done" if failed is None else "failed",
        "reason": failed,
        "inputs": dict(case.inputs),
        "rows": [dict(row) for row in rows],
        "seconds": time.perf_counter() - start,
    }


def _require_plain(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        for column, value in row.items():
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    raise NonFiniteError(f"{column} is {number}; figures must be finite.")
    json.dumps(list(rows), allow_nan=False)


@contextmanager
def _opened(out: str | os.PathLike[str] | None, plan: Mapping[str, Any], **about: Any) -> Iterator[Store | None]:
    if out is None:
        yield None
        return
    with Store(Path(out), SCHEMA, plan, **about) as store:
        yield store
