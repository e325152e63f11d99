"""The edits that are in the model at once: made, measured together, and taken out again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from neuronwise.data.facts import FactCase
from neuronwise.edit.edit import Edit
from neuronwise.errors import EditError
from neuronwise.measure.case import ask_case, case_figures, others_figures
from neuronwise.measure.cost import Cost, costs
from neuronwise.measure.figures import Figures
from neuronwise.model.model import Model
from neuronwise.model.sample import seeded
from neuronwise.study.evaluation.editors import Maker
from neuronwise.study.evaluation.rows import done_row, failed_row
from neuronwise.study.evaluation.unedited import Unedited
from neuronwise.study.failures import FAILURES, reason
from neuronwise.study.store import Row


@dataclass(frozen=True)
class Choices:
    """How an evaluation measures, for all of its editors alike.

    ``sequential`` edits are made one after another and all kept while their cases are measured; each may hold a
    ``batch`` of facts. ``known`` leaves out facts whose true answer the model does not give by itself, then ``limit``
    takes the first ones. ``others``: the number of other facts, drawn by ``seed``, that are asked after each edit.
    ``free`` generates beside teacher forcing, ``fluency`` generates 100 tokens more. ``drawn`` takes the facts in an
    order drawn by ``seed``, ``skip`` leaves out the first of them.
    """

    known: bool = False
    limit: int | None = None
    seed: int = 0
    sequential: int = 1
    batch: int = 1
    others: int = 50
    free: bool = True
    fluency: bool = False
    drawn: bool = False
    skip: int = 0

    def plan(self) -> Row:
        """As a manifest holds them; what came later only where it is not the default."""
        return {name: value for name, value in vars(self).items() if value or name not in ("drawn", "skip")}


class EditBatch:
    """``cases`` whose edits, ``choices.batch`` facts in each, are kept at once."""

    def __init__(
        self, model: Model, cases: Sequence[FactCase], maker: Maker, unedited: Unedited, choices: Choices
    ) -> None:
        self._model, self._cases, self._maker = model, cases, maker
        self._unedited, self._choices = unedited, choices
        self._applied: list[Edit] = []
        self._made: dict[str, tuple[Edit, Cost]] = {}
        self._failed = {case.id: unedited.failed[case.id] for case in cases if case.id in unedited.failed}

    def rows(self, wanted: Sequence[str]) -> Generator[Row, None, None]:
        """Edit all cases, then give the rows of the ``wanted`` ones, one by one.

        The weights are as they were, to the bit, when the iterator ends or is closed.
        """
        able = [case for case in self._cases if case.id not in self._failed]
        try:
            for start in range(0, len(able), self._choices.batch):
                self._edit(able[start : start + self._choices.batch])
            others = self._others() if any(name in self._made for name in wanted) else {}
            for case in self._cases:
                if case.id in wanted:
                    yield self._row(case, others)
        finally:
            self._take_out()

    def _edit(self, cases: Sequence[FactCase]) -> None:
        """One edit of these cases, applied; each bears its share of the seconds, and a failure is theirs alone."""
        edit: Edit | None = None
        try:
            # What an editor draws without its own seed is the same after a resumption.
            with seeded(self._model, self._choices.seed), costs(self._model) as cost:
                edit = self._maker.make(self._model, [fact for case in cases for fact in case.facts])
            cost.seconds /= len(cases)
            cost.cpu_seconds /= len(cases)
            self._applied.append(edit)  # before it is in: applying may stop half-way
            edit.apply(self._model)
        except FAILURES as error:
            if edit is not None:
                self._revert(self._applied.pop())
            self._failed |= dict.fromkeys((case.id for case in cases), reason(error))
        else:
            self._made |= dict.fromkeys((case.id for case in cases), (edit, cost))

    def _others(self) -> Figures:
        """How other facts fare; where they cannot be asked all cases fail."""
        try:
            return others_figures(self._model, self._unedited.others_than(self._cases))
        except FAILURES as error:
            self._failed |= dict.fromkeys(self._made, f"other facts: {reason(error)}")
            return {}

    def _row(self, case: FactCase, others: Figures) -> Row:
        kept = len(self._made)
        if case.id in self._failed:
            return failed_row(case, self._failed[case.id], kept)
        start = time.perf_counter()
        first = self._unedited.cases[case.id]
        try:
            after = ask_case(self._model, case, first, free=self._choices.free, fluency=self._choices.fluency)
        except FAILURES as error:
            return failed_row(case, f"after the edit: {reason(error)}", kept)
        figures = {**case_figures(after, first), **others}
        return done_row(case, first, after, figures, *self._made[case.id], time.perf_counter() - start, kept)

    def _take_out(self) -> None:
        while self._applied:
            self._revert(self._applied.pop())

    def _revert(self, edit: Edit) -> None:
        with contextlib.suppress(EditError):  # it never came in
            edit.revert(self._model)
