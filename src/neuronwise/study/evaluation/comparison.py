"""Two evaluations of the same facts, paired case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuronwise.errors import StudyError, told
from neuronwise.measure.bootstrap import Mean, mean_interval
from neuronwise.study.evaluation.results import Evaluation
from neuronwise.study.store import Row

ASKED = ("prompt", "subject", "target_new", "image")  # what makes two cases of one id the same


@dataclass(frozen=True)
class Paired:
    """A figure over the cases in which both evaluations have it; ``difference`` is the second minus the first."""

    first: Mean
    second: Mean
    difference: Mean


@dataclass(frozen=True)
class Comparison:
    """``cases`` that both measured, the figures that both have, and the keys of the recipes that differ."""

    cases: int
    figures: Mapping[str, Paired]
    differs: tuple[str, ...]


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """The figures of two evaluations, paired over the cases that both measured, with bootstrap intervals.

    Raises ``StudyError`` where they share no case, or a case of one id is another fact in each.
    """
    with told(StudyError, "The cases of one of the evaluations are damaged"):
        cases, figures = _paired(first.rows, second.rows)
    keys = dict.fromkeys((*first.recipe, *second.recipe))
    differs = tuple(key for key in keys if first.recipe.get(key) != second.recipe.get(key))
    return Comparison(cases, figures, differs)


def _paired(first: Sequence[Row], second: Sequence[Row]) -> tuple[int, dict[str, Paired]]:
    """How many cases both have measured, and the figures over them."""
    done = [{row["id"]: row for row in rows if row["status"] != "failed"} for rows in (first, second)]
    shared = [key for key in done[0] if key in done[1]]
    if not shared:
        raise StudyError("The evaluations share no case that both measured; nothing can be compared.")
    pairs = [(done[0][key], done[1][key]) for key in shared]
    for one, other in pairs:
        name = next((name for name in ASKED if one[name] != other[name]), None)
        if name is not None:
            values = f"{one[name]!r} and {other[name]!r}"
            raise StudyError(f"Case {one['id']!r} is another fact in each evaluation: its {name} is {values}.")
    figures: dict[str, Paired] = {}
    for name in dict.fromkeys(name for one, _ in pairs for name in one["figures"]):
        values = [
            (one["figures"][name], other["figures"][name])
            for one, other in pairs
            if name in one["figures"] and name in other["figures"]
        ]
        means = [
            mean_interval(column)
            for column in ((a for a, _ in values), (b for _, b in values), (b - a for a, b in values))
        ]
        if means[0] is not None and means[1] is not None and means[2] is not None:
            figures[name] = Paired(means[0], means[1], means[2])
    return len(shared), figures
