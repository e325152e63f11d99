"""All numbers of one case, before and after an edit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NotRequired, TypedDict

from neuronwise.answers.answers import Answered, ask, long_texts, protocol_texts, sampled_texts
from neuronwise.answers.protocols.table import PROTOCOLS
from neuronwise.answers.questions import Question, beginnings_of, questions_of
from neuronwise.data.facts import FactCase
from neuronwise.edit.edit import Edit
from neuronwise.files.kinds import misfits
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.measure.figures import Figures, figures
from neuronwise.measure.fluency import fluency, fluency_released
from neuronwise.measure.protocols import protocol_figures
from neuronwise.model.model import Model


@dataclass(frozen=True)
class CaseAnswers:
    """What a model says now to all questions of one case.

    For its fluency, ``long`` are 100 greedy tokens behind some beginnings, ``drawn`` texts as the released code of
    [ROME] draws them. ``protocols``: what it says to those of the questions that a protocol asks, by its name.
    """

    answers: tuple[Answered, ...]
    long: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    protocols: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def questions(self) -> list[Question]:
        """What was asked."""
        return [answered.question for answered in self.answers]

    def to_dict(self) -> dict[str, Any]:
        """The answers as plain JSON values."""
        answers = [answered.to_dict() for answered in self.answers]
        protocols = {name: list(texts) for name, texts in self.protocols.items()}
        return {
            "answers": answers,
            "long": list(self.long),
            "drawn": list(self.drawn),
            **({"protocols": protocols} if protocols else {}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> CaseAnswers:
        """Read what ``to_dict`` gave; raises ``TypeError`` for anything else."""
        if wrong := misfits(content, _Saved):
            raise TypeError(f"of a case's answers {wrong}")
        return cls(
            tuple(Answered.from_dict(row) for row in content["answers"]),
            tuple(content["long"]),
            tuple(content.get("drawn", ())),
            {name: tuple(texts) for name, texts in content.get("protocols", {}).items()},
        )


class _Saved(TypedDict):
    answers: list[dict[str, object]]
    long: list[str]
    drawn: NotRequired[list[str]]
    protocols: NotRequired[dict[str, list[str]]]


def ask_case(
    model: Model,
    case: FactCase,
    before: CaseAnswers | None = None,
    *,
    free: bool = True,
    fluency: bool = False,
    protocols: Sequence[str] = (),
) -> CaseAnswers:
    """Ask the model, as it is now, everything about ``case``.

    ``before`` are its answers before the edit: its own words there are asked for again. ``free`` generates, ``fluency``
    generates texts of 100 tokens more (slow), ``protocols`` asks by each of them too (``PROTOCOLS``). Raises
    ``NonFiniteError`` when the model gives no finite probabilities.
    """
    questions = questions_of(case)
    answers = ask(model, questions, None if before is None else before.answers, free=free)
    said = {name: protocol_texts(model, questions, PROTOCOLS[name]) for name in protocols}
    if not fluency:
        return CaseAnswers(tuple(answers), protocols=said)
    long, drawn = long_texts(model, beginnings_of(case)), sampled_texts(model, beginnings_of(case, None))
    return CaseAnswers(tuple(answers), long, drawn, said)


def case_figures(after: CaseAnswers, before: CaseAnswers | None = None) -> Figures:
    """``figures`` of one case, those of protocols, and the mean ``fluency`` of texts that were generated for it."""
    found = figures(after.answers, None if before is None else before.answers)
    found |= protocol_figures(after.questions, after.protocols, None if before is None else before.protocols)
    for name, measured, texts in (
        ("fluency", fluency, after.long),
        ("fluency_released", fluency_released, after.drawn),
    ):
        if texts:
            found[name] = fmean(map(measured, texts))
    return found


def measure_edit(
    model: Model,
    case: FactCase,
    edit: Edit,
    *,
    before: CaseAnswers | None = None,
    others: Sequence[Answered] = (),
    free: bool = True,
    fluency: bool = False,
    protocols: Sequence[str] = (),
) -> Figures:
    """Figures of one edit by their names; the model is left as it was.

    ``before`` saves asking again when several edits of one case are compared (``ask_case``); ``others`` are answers
    before the edit to questions about other facts (``ask(model, others_of(facts), free=False)``).
    """
    if before is None:
        before = ask_case(model, case, free=free, fluency=fluency, protocols=protocols)
    with edit.applied(model):
        after = ask_case(model, case, before, free=free, fluency=fluency, protocols=protocols)
        return {**case_figures(after, before), **others_figures(model, others)}


def others_figures(model: Model, before: Sequence[Answered]) -> Figures:
    """How many of other facts' answers are as they were ``before``; free generation only where it was asked then."""
    if not before:
        return {}
    after = ask(model, [answered.question for answered in before], before, free=before[0].text is not None)
    return figures(after, before)


def means(rows: Iterable[Mapping[str, float]]) -> Figures:
    """The mean of each figure over the cases that have it."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: found.mean for name in names if (found := mean_interval((row.get(name) for row in rows), resamples=1))
    }
