"""An evaluation about to run: the unedited model is asked first, then each editor's edits are measured in turn."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from neuronwise.answers.protocols.table import PROTOCOLS
from neuronwise.data.facts import FactCase
from neuronwise.errors import NothingToStudy, StudyError
from neuronwise.files.kinds import WRONG, as_kind
from neuronwise.model.model import Model
from neuronwise.study.evaluation.edit_batch import Choices, EditBatch
from neuronwise.study.evaluation.editors import Maker
from neuronwise.study.evaluation.plan import ONE, SEVERAL, plan_of, take_over
from neuronwise.study.evaluation.rows import failed_row, on_the_way
from neuronwise.study.evaluation.sequence import Asked, asked_in_row, checked_every
from neuronwise.study.evaluation.unedited import DAMAGED, ask_unedited, draw, first_known
from neuronwise.study.kind import Unit
from neuronwise.study.notes import Notes, Row
from neuronwise.study.progress import Progress


class EvaluationJob:
    """Editors, by their names, on the same facts; their cases have the ids of the facts, after "NAME/" if several.

    ``like``: a folder to take the answers before any edit from. ``about``: what else of the recipe the plan holds.
    """

    def __init__(
        self,
        model: Model,
        cases: Sequence[FactCase],
        makers: Mapping[str, Maker],
        choices: Choices,
        source: Mapping[str, object],
        like: str | os.PathLike[str] | None = None,
        about: Mapping[str, object] | None = None,
    ) -> None:
        _require(cases, choices)
        for one in makers.values():
            one.require(model)
        self._model, self._given, self._makers, self._choices, self._like = model, cases, makers, choices, like
        self._ability = choices.ability()
        self.schema = ONE if len(makers) == 1 else SEVERAL
        self.plan: Mapping[str, object] = plan_of(model, cases, makers, {**choices.plan(), **(about or {})})
        self.source = source

    def begin(self, notes: Notes, folder: Path | None, tell: Progress) -> list[Unit]:
        """Ask the unedited model; edits that are kept at once are one unit."""
        choices, cases = self._choices, list(self._given)
        if self._like is not None and not notes.rows:
            take_over(notes, os.fspath(self._like), self.plan)
        if choices.known:
            few = choices.limit is not None and not choices.drawn
            enough = choices.skip + (choices.limit or 0) + choices.others if few else None
            cases = first_known(self._model, cases, enough, notes, tell)
        if choices.drawn:
            cases = draw(cases, len(cases), choices.seed)
        cases = cases[choices.skip :]
        chosen, beyond = (cases, []) if choices.limit is None else (cases[: choices.limit], cases[choices.limit :])
        if not chosen:
            raise NothingToStudy("There is no case to evaluate: the model gives none of the true answers by itself.")
        others = draw(beyond if len(beyond) >= choices.others else cases, choices.others, choices.seed)
        self._unedited = ask_unedited(self._model, chosen, others, notes, tell, choices.asking())
        able = notes.kept("ability", "before", lambda: self._ability.figures(self._model))
        if as_kind(able, dict[str, float]) is WRONG:
            raise StudyError(f"{DAMAGED}: the figures of general ability are no numbers.")
        self._unedited = replace(self._unedited, ability=able)
        several = len(self._makers) > 1
        units, self._cases = [], dict[str, Asked]()
        whole = choices.every is not None and choices.sequential == 1
        size = len(chosen) if whole else choices.sequential * choices.batch
        for start in range(0, len(chosen), size):  # so that an unfinished one has the same cases of all editors
            row = chosen[start : start + size]
            for name in self._makers:
                asked = asked_in_row(name, row, list(self._unedited.failed), choices.batch, choices.every)
                keyed = {one.key(several): one for one in asked}
                units.append(Unit(tuple(keyed)))
                self._cases |= keyed
        ids = list(self._cases)
        notes.kept("study", "cases", lambda: {"ids": ids})
        return units

    def measure(self, unit: Unit, wanted: Sequence[str]) -> Generator[Row, None, None]:
        """The lines of the wanted cases of edits that are in the model at once."""
        asked = {key: self._cases[key] for key in unit.cases}
        name = next(iter(asked.values())).editor
        cases = [one.case for one in asked.values() if one.last]
        after: dict[int, list[str]] = {}
        for key in wanted:
            after.setdefault(asked[key].edits, []).append(asked[key].case.id)
        keys = {(one.case.id, one.edits): key for key, one in asked.items()}
        edits = EditBatch(self._model, cases, self._makers[name], self._unedited, self._choices, self._ability)
        with contextlib.closing(edits.rows(after)) as rows:
            for number, row in rows:
                key = keys[row["id"], number]
                yield {**(row if asked[key].last else on_the_way(row)), **self._head(key)}

    def failed(self, name: str, reason: str) -> Row:
        """The line of a case that could not be measured."""
        return {**failed_row(self._cases[name].case, reason, 0), **self._head(name)}

    def _head(self, name: str) -> Row:
        """What a line begins with where there are several editors, or measures on the way."""
        one = self._cases[name]
        editor = {"editor": one.editor, "case": one.case.id} if len(self._makers) > 1 else {}
        return {"id": name, **editor, **(one.head() if self._choices.every is not None else {})}


def _require(cases: Sequence[FactCase], choices: Choices) -> None:
    if not cases:
        raise StudyError("There are no cases to evaluate.")
    strange: object = next((case for case in cases if type(case) is not FactCase), None)
    if strange is not None:
        raise StudyError(f"Cases are what load_facts gives, or a list of FactCase; not {strange!r:.80}.")
    ids = [case.id for case in cases]
    if len(set(ids)) < len(ids):
        twice = next(name for name, count in Counter(ids).items() if count > 1)
        raise StudyError(f"Two cases have the id {twice!r}; each needs its own.")
    for name in choices.protocols:
        _ = PROTOCOLS[name]  # an unknown one is refused
    for name, least in (("limit", 1), ("sequential", 1), ("batch", 1), ("others", 0), ("skip", 0), ("tasks_limit", 1)):
        number = getattr(choices, name)
        if number is not None and (not isinstance(number, int) or number < least):
            raise StudyError(f"{name} is {number!r}; it must be a whole number, {least} or more.")
    if choices.every is not None:
        checked_every(choices.every)
