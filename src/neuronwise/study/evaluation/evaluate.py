"""Evaluating an editor on many facts, from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from neuronwise.data.facts import FactCase, Facts
from neuronwise.edit.edit import Edit
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.model.model import Model
from neuronwise.model.named import Named
from neuronwise.study.evaluation.edit_batch import Choices
from neuronwise.study.evaluation.editors import maker
from neuronwise.study.evaluation.measure import EvaluationJob
from neuronwise.study.evaluation.results import Evaluation, evaluations
from neuronwise.study.evaluation.rows import flat_rows
from neuronwise.study.evaluation.sequence import checked_every
from neuronwise.study.executors import Workers
from neuronwise.study.progress import Progress, silent
from neuronwise.study.runner import run_job


def evaluate(
    model: Model | Named,
    cases: Iterable[FactCase],
    editor: str | Callable[..., Edit] = "fine",
    settings: object = None,
    *,
    statistics: Statistics | None = None,
    out: str | os.PathLike[str] | None = None,
    known: bool = False,
    limit: int | None = None,
    seed: int = 0,
    sequential: int = 1,
    batch: int = 1,
    others: int = 50,
    free: bool = True,
    fluency: bool = False,
    every: int | Sequence[int] | None = None,
    protocols: Sequence[str] = (),
    perplexity: str | os.PathLike[str] | None = None,
    tasks: Sequence[str] = (),
    tasks_limit: int | None = None,
    like: str | os.PathLike[str] | None = None,
    executor: str = "serial",
    workers: int | Workers | None = None,
    shard: str | None = None,
    progress: Progress = silent,
    changes: Mapping[str, object] | None = None,
    **more: Any,
) -> Evaluation:
    """Edit every fact, measure, and take the edit out again; with ``out`` each finished case is kept in that folder.

    ``changes`` are single settings of the editor, also given by their names (``n=10``); see ``Choices`` for the other
    options, and ``run_study`` for ``executor``, ``workers`` and ``shard``. ``like`` takes the answers before any edit
    from another editor's folder. A case that cannot be edited or measured (memory, numbers that are not finite, a bad
    request) becomes a row with status "failed" and its reason. The same call on the same folder resumes where it
    stopped. Raises ``StudyError`` for a folder of another recipe and ``MethodError`` for unknown settings.
    """
    source = cases.about() if isinstance(cases, Facts) else {"source": None, "digest": None}
    stops = None if every is None else checked_every(every)
    choices = Choices(
        known, limit, seed, sequential, batch, others, free, fluency, every=stops, protocols=tuple(protocols),
        perplexity=None if perplexity is None else os.fspath(perplexity), tasks=tuple(tasks), tasks_limit=tasks_limit,
    )  # fmt: skip
    made = maker(editor, settings, {**(changes or {}), **more}, statistics, seed)
    make = partial(
        EvaluationJob, cases=list(cases), makers={made.name: made}, choices=choices, source=source, like=like
    )
    return evaluations(run_job(make, model, out, executor, workers, shard, progress, flat_rows))[made.name]
