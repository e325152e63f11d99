"""Evaluating an editor on many facts: before first, then edit by edit, each case finished for good."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuronwise.data.facts import FactCase
from neuronwise.edit.edit import Edit
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.errors import NothingToStudy, StudyError
from neuronwise.measure import Mean, mean_interval
from neuronwise.model.model import Model
from neuronwise.study.before import Progress, ask_before, draw, find_known, silent
from neuronwise.study.recipe import maker, recipe, same_before
from neuronwise.study.rows import flat_row
from neuronwise.study.store import Store, read_before, read_cases, read_manifest
from neuronwise.study.unit import measured_unit

SCHEMA = "neuronwise.evaluation/1"


@dataclass(frozen=True)
class Evaluation:
    """``rows``: one for each case, in the order of the cases; ``recipe``: what they were made from."""

    recipe: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    folder: Path | None = None

    @property
    def failed(self) -> list[Mapping[str, Any]]:
        return [row for row in self.rows if row["status"] == "failed"]

    def means(self, which: str = "figures") -> dict[str, Mean]:
        """Mean and 95 % interval over cases of each of the "figures" after, "before" or of the "cost"."""
        names = dict.fromkeys(name for row in self.rows for name in row[which])
        found = {name: mean_interval(row[which].get(name) for row in self.rows) for name in names}
        return {name: mean for name, mean in found.items() if mean is not None}


def evaluate(
    model: Model,
    cases: Iterable[FactCase],
    editor: str | Callable[..., Edit] = "fine",
    settings: Any = None,
    *,
    statistics: Any = None,
    out: str | os.PathLike[str] | None = None,
    known: bool = False,
    limit: int | None = None,
    seed: int = 0,
    sequential: int = 1,
    batch: int = 1,
    others: int = 50,
    free: bool = True,
    fluency: bool = False,
    like: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
    changes: Mapping[str, Any] | None = None,
    **more: Any,
) -> Evaluation:
    """Edit every fact, measure, and take the edit out again; with ``out`` each finished case is kept in that folder.

    ``changes`` are single settings of the editor, also given by their names (``n=10``). ``sequential`` edits are made
    one after another and kept at once before their cases are measured; each may hold a ``batch`` of facts. ``known``
    leaves out facts whose true answer the model does not give by itself, then ``limit`` takes the first ones. Of
    ``others`` other facts, drawn by ``seed`` (from beyond the limit where there are enough), it is counted how many
    keep their answers. A case that cannot be edited or measured (memory, numbers that are not finite, a bad request)
    becomes a row with status "failed" and its reason. The same call on the same folder goes on where it stopped.
    Raises ``StudyError`` for a folder of another recipe and ``MethodError`` for unknown settings.
    """
    source = {name: getattr(cases, name, None) for name in ("source", "digest")}  # known of loaded ``Facts``
    cases = list(cases)
    _require(cases, limit=limit, sequential=sequential, batch=batch, others=others)
    made = maker(editor, settings, {**(changes or {}), **more}, statistics, seed)
    made.require_layers(model)
    if isinstance(statistics, Statistics):
        statistics.require(model, [])
    options = {"free": free, "fluency": fluency}
    plan = recipe(
        model, cases, made, known=known, limit=limit, seed=seed, sequential=sequential, batch=batch,
        others=others, **options,
    )  # fmt: skip
    with _store(out, plan, source) as store:
        notes = None if store is None else store.before
        if like is not None and store is not None and not store.before.rows:
            _take_over(store, like, plan)
        if known:
            cases = find_known(model, cases, None if limit is None else limit + others, notes, progress)
        chosen, beyond = (cases, []) if limit is None else (cases[:limit], cases[limit:])
        if not chosen:
            raise NothingToStudy("There is no case to evaluate: the model gives none of the true answers by itself.")
        drawn = draw(beyond if len(beyond) >= others else cases, others, seed)
        before = ask_before(model, chosen, drawn, options, notes, progress)
        rows = {} if store is None else {row["id"]: row for row in store.cases.rows}
        for start in range(0, len(chosen), sequential * batch):
            unit = chosen[start : start + sequential * batch]
            wanted = [case.id for case in unit if case.id not in rows]
            if not wanted:
                continue
            with contextlib.closing(measured_unit(model, unit, wanted, made, before, batch, seed, options)) as measured:
                for row in measured:
                    if store is not None:
                        store.cases.append(row)
                    rows[row["id"]] = row
                    progress("cases", len(rows), len(chosen))
        ordered = [rows[case.id] for case in chosen]
        if store is not None:
            store.write_table([flat_row(row) for row in ordered])
        return Evaluation(plan, ordered, None if store is None else store.folder)


def is_evaluation(folder: str | os.PathLike[str]) -> bool:
    """Whether this is a folder that ``evaluate`` made."""
    try:
        return read_manifest(folder)["schema"] == SCHEMA
    except StudyError:
        return False


def read_evaluation(folder: str | os.PathLike[str]) -> Evaluation:
    """What a folder holds of an evaluation, finished or not; raises ``StudyError`` for one that is none."""
    manifest = read_manifest(folder)
    if manifest["schema"] != SCHEMA:
        raise StudyError(f"'{folder}' holds {manifest['schema']!r}; this version reads {SCHEMA!r}.")
    return Evaluation(manifest["recipe"], read_cases(folder), Path(folder))


def _require(cases: Sequence[FactCase], **numbers: int | None) -> None:
    if not cases:
        raise StudyError("There are no cases to evaluate.")
    strange = next((case for case in cases if not isinstance(case, FactCase)), None)
    if strange is not None:
        raise StudyError(f"Cases are what load_facts gives, or a list of FactCase; not {strange!r:.80}.")
    ids = [case.id for case in cases]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise StudyError(f"Two cases have the id {twice!r}; each needs its own.")
    for name, number in numbers.items():
        least = 0 if name == "others" else 1
        if number is not None and (not isinstance(number, int) or number < least):
            raise StudyError(f"{name} is {number!r}; it is a whole number, {least} or more.")


def _take_over(store: Store, like: str | os.PathLike[str], plan: Mapping[str, Any]) -> None:
    different = same_before(read_manifest(like)["recipe"], plan)
    if different is not None:
        raise StudyError(f"'{like}' is an evaluation with another {different}; its answers before do not serve here.")
    for row in read_before(like):
        store.before.append(row)


@contextlib.contextmanager
def _store(
    out: str | os.PathLike[str] | None, plan: Mapping[str, Any], source: Mapping[str, Any]
) -> Iterator[Store | None]:
    if out is None:
        yield None
        return
    with Store(out, SCHEMA, plan, data=source) as store:
        yield store
