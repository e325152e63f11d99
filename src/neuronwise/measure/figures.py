"""Figures of one case from the answers before and after an edit: no model, only counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import exp
from statistics import fmean

from neuronwise.answers.answers import Answered
from neuronwise.answers.free import begins_with
from neuronwise.answers.questions import GENERALITY, OTHERS, OWN, SUCCESS

Figures = dict[str, float]
PORTABILITY, LOCALITY = "portability_", "locality_"
SAME_SUBJECT, NEIGHBORHOOD = "locality_relation_specificity", "locality_neighborhood"


def figures(after: Sequence[Answered], before: Sequence[Answered] | None = None) -> Figures:
    """Each figure of one case by its name; one that the case has no question for is left out.

    Names end in their protocol: ``_forced`` (teacher forcing: share of an answer's tokens that are argmax; of several
    answers the best counts) and ``_free`` (greedy generation starts with the answer); portability also in
    ``_first_forced``, of the first of several answers alone, as in KnowEdit's released code. Figures that compare need
    the answers ``before``: locality, over-editing, unchanging and other facts.
    """
    found: dict[str, float | None] = {}
    for part in dict.fromkeys(answered.question.part for answered in after):
        if not part.startswith(LOCALITY) and part != OTHERS:
            members = [answered for answered in after if answered.question.part == part]
            found[f"{part}_forced"] = _mean(_forced(answered) for answered in members)
            found[f"{part}_free"] = _mean(_free(answered) for answered in members)
    found |= _counterfact(after)
    if before is not None:
        found |= _kept(list(zip(before, after, strict=True)))
    for group in (PORTABILITY, LOCALITY):
        for protocol in ("forced", "free"):
            kinds = [v for name, v in found.items() if name.startswith(group) and name.endswith(protocol)]
            found[f"{group}{protocol}"] = _mean(kinds)
    return _present(found | _first_answers(after))


def _present(found: Mapping[str, float | None]) -> Figures:
    return {name: value for name, value in found.items() if value is not None}


def _first_answers(after: Sequence[Answered]) -> dict[str, float | None]:
    """Portability by the first of several answers alone: each kind's, and the mean of kinds."""
    shares: dict[str, list[float]] = {}
    for answered in after:
        part = answered.question.part
        if part.startswith(PORTABILITY):
            shares.setdefault(part, []).append(answered.readings[answered.question.answers[0]].share)
    kinds = {f"{part}_first_forced": fmean(own) for part, own in shares.items()}
    return {**kinds, f"{PORTABILITY}first_forced": _mean(kinds.values())}


def _kept(pairs: Sequence[tuple[Answered, Answered]]) -> dict[str, float | None]:
    """What compares with before."""
    found: dict[str, float | None] = {}
    for part in dict.fromkeys(old.question.part for old, _ in pairs):
        members = [pair for pair in pairs if pair[0].question.part == part]
        if part.startswith(LOCALITY):
            found[f"{part}_forced"] = _mean(_same_tokens(*pair) for pair in members)
            found[f"{part}_free"] = _mean(_same_text(*pair) for pair in members)
        if part == OTHERS:
            found["others_unchanged_forced"] = _mean(_unchanged(*pair) for pair in members)
            found["others_unchanged_free"] = _mean(_same_text(*pair) for pair in members)
        if part == SAME_SUBJECT:
            found["overediting_forced"] = _mean(_says_new(new) for _, new in members)
            found["overediting_free"] = _mean(_says_new_freely(new) for _, new in members)
            found["unchanging_forced"] = _mean(_unchanged(*pair) for pair in members)
            found["unchanging_free"] = _mean(_same_text(*pair) for pair in members)
    return found


def _counterfact(after: Sequence[Answered]) -> dict[str, float | None]:
    """CounterFact's success and magnitude; probabilities are geometric means over a target's tokens, as published.

    On the request and its paraphrases the new target should be more probable, on the neighborhood the true one.
    """
    found: dict[str, float | None] = {}
    for name, part, sign in (
        ("efficacy", SUCCESS, 1),
        ("paraphrase", GENERALITY, 1),
        ("neighborhood", NEIGHBORHOOD, -1),
    ):
        gaps = [
            sign * (exp(a.readings[q.new].log_prob) - exp(a.readings[q.old].log_prob))
            for a in after
            if (q := a.question).part == part and q.new and q.old
        ]
        found[f"{name}_success"] = _mean(float(gap > 0) for gap in gaps)
        found[f"{name}_magnitude"] = _mean(gaps)
    return found


def _forced(answered: Answered) -> float:
    return max(answered.readings[answer].share for answer in answered.question.answers)


def _free(answered: Answered) -> float | None:
    if answered.text is None:
        return None
    return float(any(begins_with(answered.text, answer) for answer in answered.question.answers))


def _kept_answer(answered: Answered) -> str:
    return answered.question.answers[0] if answered.question.answers else OWN


def _same_tokens(before: Answered, after: Answered) -> float | None:
    """Share of argmax tokens that are the same, over the answer's places."""
    key = _kept_answer(before)
    if key not in before.readings:
        return None
    best = zip(before.readings[key].best, after.readings[key].best, strict=True)
    return fmean(float(a == b) for a, b in best)


def _unchanged(before: Answered, after: Answered) -> float | None:
    same = _same_tokens(before, after)
    return None if same is None else float(same == 1)


def _same_text(before: Answered, after: Answered) -> float | None:
    return None if before.text is None or after.text is None else float(before.text == after.text)


def _says_new(after: Answered) -> float | None:
    new = after.question.new
    return None if not new else float(after.readings[new].share == 1)


def _says_new_freely(after: Answered) -> float | None:
    new = after.question.new
    return None if not new or after.text is None else float(begins_with(after.text, new))


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
