"""What the model says before any edit: asked once, first, and kept."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from neuronwise.data.facts import FactCase
from neuronwise.errors import NeuronwiseError, StudyError, told
from neuronwise.measure import Answered, CaseAnswers, ask, ask_case, others_of
from neuronwise.measure.figures import Figures
from neuronwise.model.model import Model
from neuronwise.study.failures import FAILURES, reason
from neuronwise.study.notes import Notes
from neuronwise.study.progress import Progress, silent

DAMAGED = "The answers before any edit (before.jsonl) are damaged"
CHUNK = 64  # cases whose known answers are read together


@dataclass(frozen=True)
class Unedited:
    """``cases``: answers by the case's id; ``others``: pairs of another case and the answer to its request;
    ``failed``: why a case could not be asked, by its id; ``ability``: figures of what else the model can do."""

    cases: Mapping[str, CaseAnswers]
    others: Sequence[tuple[FactCase, Answered]]
    failed: Mapping[str, str]
    ability: Figures = field(default_factory=dict)

    def others_than(self, unit: Iterable[FactCase]) -> list[Answered]:
        """Answers to facts that are neither of these cases nor of their subjects."""
        unit = list(unit)
        ids = {case.id for case in unit}
        subjects = {fact.subject for case in unit for fact in case.facts}
        return [answered for case, answered in self.others if case.id not in ids and case.fact.subject not in subjects]


def known_cases(model: Model, cases: Sequence[FactCase], progress: Progress = silent) -> list[FactCase]:
    """The cases whose true answers the model gives by itself: every token is argmax under teacher forcing.

    Cases without a true answer do not count as known.
    """
    return first_known(model, cases, None, Notes(), progress)


def first_known(
    model: Model, cases: Sequence[FactCase], enough: int | None, notes: Notes, tell: Progress
) -> list[FactCase]:
    """``known_cases``, the first ``enough`` of them; read back from ``notes`` where these have them."""
    starts = range(0, len(cases), CHUNK)
    with told(StudyError, DAMAGED):
        known: dict[int, set[str]] = {
            int(row["start"]): set(row["ids"]) for row in notes.rows if row["part"] == "known"
        }

    def answer(names: Sequence[str]) -> None:
        for start in map(int, names):
            asked = [case for case in cases[start : start + CHUNK] if all(fact.target_true for fact in case.facts)]
            single = [replace(case, fact=fact, also=()) for case in asked for fact in case.facts]
            unknown = {
                case.id
                for case, answered in zip(single, _requests(model, single), strict=True)
                if answered is None or any(reading.share < 1 for reading in answered.readings.values())
            }
            said = [case.id for case in asked if case.id not in unknown]
            notes.append({"part": "known", "start": start, "ids": said})
            known[start] = set(said)

    if enough is None:
        notes.ask("known answers", [str(start) for start in starts if start not in known], answer, tell)
    found: list[FactCase] = []
    for start in starts:
        if enough is not None and len(found) >= enough:
            break
        if start not in known:  # one after another, since a few may do
            answer([str(start)])
            tell("known answers", min(start + CHUNK, len(cases)), len(cases))
        found += [case for case in cases[start : start + CHUNK] if case.id in known[start]]
    return found if enough is None else found[:enough]


def draw(cases: Sequence[FactCase], number: int, seed: int) -> list[FactCase]:
    """``number`` cases (all, if there are fewer), the same for the same seed."""
    return random.Random(seed).sample(list(cases), min(number, len(cases)))


def ask_unedited(
    model: Model,
    cases: Sequence[FactCase],
    others: Sequence[FactCase],
    notes: Notes,
    tell: Progress,
    asking: Mapping[str, Any],
) -> Unedited:
    """Everything that is compared with later (``asking``: see ``ask_case``); what ``notes`` hold is not asked again."""
    with told(StudyError, DAMAGED):
        found = {row["id"]: CaseAnswers.from_dict(row) for row in notes.rows if row["part"] == "case"}
        failed: dict[str, str] = {row["id"]: row["reason"] for row in notes.rows if row["part"] == "failed"}
        pairs = next((row["others"] for row in notes.rows if row["part"] == "others"), None)
    if pairs is None:
        asked = zip(others, _requests(model, others), strict=True)
        pairs = [[case.id, said.to_dict()] for case, said in asked if said is not None]
        notes.append({"part": "others", "others": pairs})
    chosen = {case.id: case for case in cases}

    def answer(names: Sequence[str]) -> None:
        for name in names:
            try:
                found[name] = ask_case(model, chosen[name], **asking)
                row = {"part": "case", "id": name, **found[name].to_dict()}
            except FAILURES as error:
                failed[name] = f"before the edit: {reason(error)}"
                row = {"part": "failed", "id": name, "reason": failed[name]}
            notes.append(row)

    notes.ask("answers before", [name for name in chosen if name not in found and name not in failed], answer, tell)
    by_id = {case.id: case for case in others}
    with told(StudyError, DAMAGED):
        return Unedited(found, [(by_id[name], Answered.from_dict(answer)) for name, answer in pairs], failed)


def _requests(model: Model, cases: Sequence[FactCase]) -> list[Answered | None]:
    """Answers read together, or one by one where one of them cannot be read."""
    try:
        return list(ask(model, others_of([case.fact for case in cases]), free=False))
    except NeuronwiseError:
        if len(cases) == 1:
            return [None]
        return [_requests(model, [case])[0] for case in cases]
