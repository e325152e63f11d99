"""The edits that are in the model at once: made, measured together, and taken out again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronwise.data.facts import FactCase
from neuronwise.edit.edit import Edit
from neuronwise.edit.ledger import Ledger
from neuronwise.errors import EditError
from neuronwise.measure.case import ask_case, case_figures, others_figures
from neuronwise.measure.cost import Cost, costs
from neuronwise.measure.figures import Figures
from neuronwise.model.model import Model
from neuronwise.model.sample import seeded
from neuronwise.study.evaluation.ability import Ability, passage_record
from neuronwise.study.evaluation.editors import Maker
from neuronwise.study.evaluation.rows import done_row, failed_row
from neuronwise.study.evaluation.sequence import Every
from neuronwise.study.evaluation.unedited import Unedited
from neuronwise.study.failures import FAILURES, reason
from neuronwise.study.store import Row

LATER = (
    "drawn",
    "skip",
    "every",
    "protocols",
    "perplexity",
    "tasks",
    "tasks_limit",
)  # choices that came after the first folders were written


@dataclass(frozen=True)
class Choices:
    """How an evaluation measures, for all of its editors alike.

    ``sequential`` edits are made one after another and all kept while their cases are measured; each may hold a
    ``batch`` of facts. ``known`` leaves out facts whose true answer the model does not give by itself, then ``limit``
    takes the first ones. ``others``: the number of other facts, drawn by ``seed``, that are asked after each edit.
    ``free`` generates beside teacher forcing, ``fluency`` generates 100 tokens more. ``drawn`` takes the facts in an
    order drawn by ``seed``, ``skip`` leaves out the first of them. ``every``: the cases so far are measured after
    every so many of the edits in a row too, or after these numbers of them, with the perplexity of a neutral text; all
    facts are one row then, unless ``sequential`` says how long a row is. ``protocols``: published ways to ask freely,
    besides. ``perplexity``: a file whose text's perplexity is measured with every edit, ``tasks`` of
    lm-evaluation-harness likewise, with ``tasks_limit`` examples of each.
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
    every: Every | None = None
    protocols: Sequence[str] = ()
    perplexity: str | None = None
    tasks: Sequence[str] = ()
    tasks_limit: int | None = None

    def ability(self) -> Ability:
        """What else is measured of the model."""
        return Ability.of(self.every is not None, self.perplexity, self.tasks, self.tasks_limit)

    def asking(self) -> dict[str, Any]:
        """What ``ask_case`` takes of them."""
        return {"free": self.free, "fluency": self.fluency, "protocols": self.protocols}

    def plan(self) -> Row:
        """As a manifest holds them; what came later only where it is not the default."""
        given = {**vars(self), "protocols": list(self.protocols), "tasks": [Path(name).name for name in self.tasks]}
        given["perplexity"] = None if self.perplexity is None else passage_record(self.perplexity)
        return {name: value for name, value in given.items() if value or name not in LATER}


class EditBatch:
    """``cases`` whose edits, ``choices.batch`` facts in each, are kept at once."""

    def __init__(
        self,
        model: Model,
        cases: Sequence[FactCase],
        maker: Maker,
        unedited: Unedited,
        choices: Choices,
        ability: Ability,
    ) -> None:
        self._model, self._cases, self._maker = model, cases, maker
        self._unedited, self._choices, self._ability = unedited, choices, ability
        self._applied: list[Edit] = []
        self._made: dict[str, tuple[Edit, Cost]] = {}
        self._failed = {case.id: unedited.failed[case.id] for case in cases if case.id in unedited.failed}

    def rows(self, wanted: Mapping[int, Collection[str]]) -> Generator[tuple[int, Row], None, None]:
        """Edit all cases in a row; give the rows of those ``wanted`` after so many edits, with that number.

        The weights are as they were, to the bit, when the iterator ends or is closed.
        """
        able = [case for case in self._cases if case.id not in self._failed]
        batch = self._choices.batch
        edits = -(-len(able) // batch)
        try:
            for number in range(1, edits):
                self._edit(able[(number - 1) * batch : number * batch])
                yield from self._asked(number, able[: number * batch], wanted.get(number, ()))
            if able:
                self._edit(able[(edits - 1) * batch :])
            yield from self._asked(edits, self._cases, wanted.get(edits, ()))
        finally:
            self._take_out()

    def _asked(
        self, number: int, cases: Sequence[FactCase], names: Collection[str]
    ) -> Generator[tuple[int, Row], None, None]:
        """The rows of the cases with these names, as the model is now."""
        aside, broken = self._aside() if any(name in self._made for name in names) else ({}, None)
        for case in cases:
            if case.id in names:
                yield number, self._row(case, aside, broken)

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

    def _aside(self) -> tuple[Figures, str | None]:
        """How other facts fare, and what else the model can do; or why they cannot be asked: then all cases fail."""
        try:
            found = others_figures(self._model, self._unedited.others_than(self._cases))
            found |= self._ability.figures(self._model)
        except FAILURES as error:
            return {}, f"other facts: {reason(error)}"
        return found, None

    def _row(self, case: FactCase, aside: Figures, broken: str | None) -> Row:
        kept = len(self._made)
        why = self._failed.get(case.id, broken)
        if why is not None:
            return failed_row(case, why, kept)
        start = time.perf_counter()
        first = self._unedited.cases[case.id]
        try:
            after = ask_case(self._model, case, first, **self._choices.asking())
        except FAILURES as error:
            return failed_row(case, f"after the edit: {reason(error)}", kept)
        figures = {**case_figures(after, first), **aside}
        row = done_row(case, first, after, figures, *self._made[case.id], time.perf_counter() - start, kept)
        row["before"] |= self._unedited.ability
        return row

    def _take_out(self) -> None:
        """All at once: one by one would sum up the rest each time."""
        if self._applied:
            with self._model.lock, contextlib.suppress(EditError):  # weights that something else has changed since
                ledger = Ledger.of(self._model)
                others = [edit for edit in ledger.edits if all(edit is not own for own in self._applied)]
                ledger.change(self._model, others)
            self._applied.clear()

    def _revert(self, edit: Edit) -> None:
        with contextlib.suppress(EditError):  # it never came in
            edit.revert(self._model)
