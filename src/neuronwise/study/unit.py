"""A unit: the edits that are in the model at once, measured together and taken out again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch

from neuronwise.data.facts import FactCase
from neuronwise.edit.edit import Edit
from neuronwise.errors import EditError
from neuronwise.measure import Cost, ask_case, case_figures, costs, others_figures
from neuronwise.model.model import Model
from neuronwise.study.before import Before
from neuronwise.study.failures import FAILURES, reason
from neuronwise.study.recipe import Maker
from neuronwise.study.rows import done_row, failed_row

Made = dict[str, tuple[Edit, Cost]]  # by the case's id


def measured_unit(
    model: Model,
    unit: Sequence[FactCase],
    wanted: Sequence[str],
    maker: Maker,
    before: Before,
    batch: int,
    seed: int,
    options: Mapping[str, Any],
) -> Generator[dict[str, Any], None, None]:
    """Edit all cases of ``unit``, ``batch`` facts an edit, then give the rows of the ``wanted`` ones, one by one.

    The weights are as they were, to the bit, when the iterator ends or is closed.
    """
    failed = {case.id: before.failed[case.id] for case in unit if case.id in before.failed}
    able = [case for case in unit if case.id not in failed]
    made: Made = {}
    applied: list[Edit] = []
    try:
        for start in range(0, len(able), batch):
            _edit(model, able[start : start + batch], maker, seed, made, applied, failed)
        kept = sum(case.id in made for case in able)
        others: dict[str, float] | str = {}
        if any(name in made for name in wanted):
            try:
                others = others_figures(model, before.others_than(unit))
            except FAILURES as error:
                others = f"other facts: {reason(error)}"
        for case in unit:
            if case.id in wanted:
                if case.id in made and isinstance(others, str):
                    failed[case.id] = others
                if case.id in failed:
                    yield failed_row(case, failed[case.id], kept)
                else:
                    yield _measured(model, case, before, *made[case.id], others, kept, options)  # type: ignore[arg-type]
    finally:
        _take_out(model, applied)


def _edit(
    model: Model,
    cases: Sequence[FactCase],
    maker: Maker,
    seed: int,
    made: Made,
    applied: list[Edit],
    failed: dict[str, str],
) -> None:
    """One edit of these cases, applied; each bears its share of the seconds, and a failure is theirs alone."""
    edit: Edit | None = None
    try:
        # Whatever an editor draws outside of its own seed is the same in a run that was resumed.
        with torch.random.fork_rng(), costs(model) as cost:
            torch.manual_seed(seed)
            edit = maker.make(model, [case.fact for case in cases])
        cost.seconds /= len(cases)
        cost.cpu_seconds /= len(cases)
        applied.append(edit)  # before it is in: applying may stop half-way
        edit.apply(model)
    except FAILURES as error:
        if edit is not None:
            _take_out(model, [applied.pop()])
        failed |= dict.fromkeys((case.id for case in cases), reason(error))
    else:
        made |= dict.fromkeys((case.id for case in cases), (edit, cost))


def _measured(
    model: Model,
    case: FactCase,
    before: Before,
    edit: Edit,
    cost: Cost,
    others: Mapping[str, float],
    kept: int,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    start = time.perf_counter()
    first = before.cases[case.id]
    try:
        after = ask_case(model, case, first, **options)
    except FAILURES as error:
        return failed_row(case, f"after the edit: {reason(error)}", kept)
    found = {**case_figures(after, first), **others}
    return done_row(case, first, after, found, edit, cost, time.perf_counter() - start, kept)


def _take_out(model: Model, applied: Sequence[Edit]) -> None:
    for edit in reversed(applied):
        with contextlib.suppress(EditError):  # it never came in
            edit.revert(model)
