"""What the model says before any edit: asked once, first, and kept."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from neuronwise.data.facts import FactCase
from neuronwise.errors import NeuronwiseError
from neuronwise.measure import Answered, CaseAnswers, ask, ask_case, others_of
from neuronwise.model.model import Model
from neuronwise.study.failures import FAILURES, reason
from neuronwise.study.progress import Progress, silent
from neuronwise.study.store import Journal, Memory

CHUNK = 64  # cases whose known answers are read together


@dataclass(frozen=True)
class Unedited:
    """``cases``: answers by the case's id; ``others``: pairs of another case and the answer to its request;
    ``failed``: why a case could not be asked, by its id."""

    cases: Mapping[str, CaseAnswers]
    others: Sequence[tuple[FactCase, Answered]]
    failed: Mapping[str, str]

    def others_than(self, unit: Iterable[FactCase]) -> list[Answered]:
        """Answers to facts that are neither of these cases nor of their subjects."""
        ids = {case.id for case in unit}
        subjects = {case.fact.subject for case in unit}
        return [answered for case, answered in self.others if case.id not in ids and case.fact.subject not in subjects]


def known_cases(model: Model, cases: Sequence[FactCase], progress: Progress = silent) -> list[FactCase]:
    """The cases whose true answer the model gives by itself: every token of it is argmax under teacher forcing.

    Cases without a true answer do not count as known.
    """
    return first_known(model, cases, None, Memory(), progress)


def first_known(
    model: Model, cases: Sequence[FactCase], enough: int | None, notes: Journal, tell: Progress
) -> list[FactCase]:
    """``known_cases``, the first ``enough`` of them; read back from ``notes`` where these have them."""
    stored = {row["start"]: set(row["ids"]) for row in notes.rows if row["part"] == "known"}
    found: list[FactCase] = []
    for start in range(0, len(cases), CHUNK):
        if enough is not None and len(found) >= enough:
            break
        chunk = cases[start : start + CHUNK]
        if start in stored:
            found += [case for case in chunk if case.id in stored[start]]
            continue
        asked = [case for case in chunk if case.fact.target_true]
        said = [
            case
            for case, answered in zip(asked, _requests(model, asked), strict=True)
            if answered is not None and all(reading.share == 1 for reading in answered.readings.values())
        ]
        found += said
        notes.append({"part": "known", "start": start, "ids": [case.id for case in said]})
        tell("known answers", min(start + CHUNK, len(cases)), len(cases))
    return found if enough is None else found[:enough]


def draw(cases: Sequence[FactCase], number: int, seed: int) -> list[FactCase]:
    """``number`` cases (all, if there are fewer), the same for the same seed."""
    return random.Random(seed).sample(list(cases), min(number, len(cases)))


def ask_unedited(
    model: Model,
    cases: Sequence[FactCase],
    others: Sequence[FactCase],
    notes: Journal,
    tell: Progress,
    *,
    free: bool,
    fluency: bool,
) -> Unedited:
    """Everything that is compared with later; what ``notes`` hold is not asked again."""
    found = {row["id"]: CaseAnswers.from_dict(row) for row in notes.rows if row["part"] == "case"}
    pairs = next((row["others"] for row in notes.rows if row["part"] == "others"), None)
    if pairs is None:
        asked = zip(others, _requests(model, others), strict=True)
        pairs = [[case.id, answered.to_dict()] for case, answered in asked if answered is not None]
        notes.append({"part": "others", "others": pairs})
    failed: dict[str, str] = {row["id"]: row["reason"] for row in notes.rows if row["part"] == "failed"}
    for number, case in enumerate(cases, 1):
        if case.id not in found and case.id not in failed:
            try:
                found[case.id] = ask_case(model, case, free=free, fluency=fluency)
                row = {"part": "case", "id": case.id, **found[case.id].to_dict()}
            except FAILURES as error:
                failed[case.id] = f"before the edit: {reason(error)}"
                row = {"part": "failed", "id": case.id, "reason": failed[case.id]}
            notes.append(row)
        tell("answers before", number, len(cases))
    by_id = {case.id: case for case in others}
    return Unedited(found, [(by_id[name], Answered.from_dict(answer)) for name, answer in pairs], failed)


def _requests(model: Model, cases: Sequence[FactCase]) -> list[Answered | None]:
    """Answers read together, or one by one where one of them cannot be read."""
    try:
        return list(ask(model, others_of([case.fact for case in cases]), free=False))
    except NeuronwiseError:
        if len(cases) == 1:
            return [None]
        return [_requests(model, [case])[0] for case in cases]
