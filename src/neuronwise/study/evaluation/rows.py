"""The row of one case: as an object of a JSON line, and flat for a table."""

from __future__ import annotations

from neuronwise.answers.protocols.table import PROTOCOLS
from neuronwise.data.facts import FactCase
from neuronwise.edit.edit import Edit
from neuronwise.measure.case import CaseAnswers, case_figures
from neuronwise.measure.cost import Cost
from neuronwise.measure.figures import Figures
from neuronwise.study.store import Row

NOT_OUTCOME = ("method", "settings", "request", "model", "revision", "versions")  # elsewhere in row or manifest
TIMINGS = ("seconds", "cpu_seconds", "measuring_seconds", "peak_memory")  # may differ in a repeated run


def done_row(
    case: FactCase,
    before: CaseAnswers,
    after: CaseAnswers,
    figures: Figures,
    edit: Edit,
    cost: Cost,
    measuring: float,
    kept: int,
) -> Row:
    """Figures after and before, what the edit cost, what the editor reports of its outcome, and all texts."""
    spent = {
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "measuring_seconds": measuring,
        "parameters_changed": edit.parameters_changed,
    }
    if cost.peak_memory is not None:
        spent["peak_memory"] = cost.peak_memory
    return {
        **_head(case, "done", None, kept),
        "figures": figures,
        "before": case_figures(before),
        "cost": spent,
        "settings": edit.record.get("settings"),
        "outcome": {name: value for name, value in edit.record.items() if name not in NOT_OUTCOME},
        "texts": [
            {"part": old.question.part, "prompt": old.question.prompt, "before": old.text, "after": new.text}
            for old, new in zip(before.answers, after.answers, strict=True)
        ],
        "long": {"before": list(before.long), "after": list(after.long)},
        **({"protocols": _by_protocol(before, after)} if after.protocols else {}),
    }


def _by_protocol(before: CaseAnswers, after: CaseAnswers) -> Row:
    """The texts that each protocol asked for, question by question."""
    found: Row = {}
    for name, texts in after.protocols.items():
        asked = [question for question in after.questions if PROTOCOLS[name].asks(question)]
        found[name] = [
            {"part": question.part, "prompt": question.prompt, "before": old, "after": new}
            for question, old, new in zip(asked, before.protocols[name], texts, strict=True)
        ]
    return found


def failed_row(case: FactCase, reason: str, kept: int) -> Row:
    """A case without figures, and why."""
    empty: Row = {"figures": {}, "before": {}, "cost": {}, "settings": None, "outcome": {}, "texts": []}
    return {**_head(case, "failed", reason, kept), **empty, "long": {"before": [], "after": []}}


def on_the_way(row: Row) -> Row:
    """The row of a case that is measured again later: its figures and what the model said to the request."""
    empty: Row = {"cost": {}, "settings": None, "outcome": {}, "long": {"before": [], "after": []}}
    return {**row, **empty, "texts": row["texts"][:1]}


def flat_row(row: Row) -> Row:
    """One level: figures by their names, ``before.``, ``cost.`` and single numbers of ``outcome.`` with that prefix.

    ``text_before`` and ``text_after`` are what the model said to the request; all texts are in the JSON line.
    """
    flat = {name: row[name] for name in (*_EDITOR, *_HEAD) if name in row}
    flat |= row["figures"]
    for group in ("before", "cost", "outcome"):
        plain = {name: value for name, value in row[group].items() if isinstance(value, (int, float, str, bool))}
        flat |= {f"{group}.{name}": value for name, value in plain.items()}
    request = row["texts"][0] if row["texts"] else {}
    return {**flat, "text_before": request.get("before"), "text_after": request.get("after")}


_EDITOR = ("editor", "case", "edits", "edit", "last")  # where there are several editors, or measures on the way
_HEAD = ("id", "status", "reason", "kept", "prompt", "subject", "target_new", "target_true", "image")


def flat_rows(row: Row) -> list[Row]:
    """``flat_row`` as a kind of study gives it."""
    return [flat_row(row)]


def _head(case: FactCase, status: str, reason: str | None, kept: int) -> Row:
    fact = case.fact
    values = (case.id, status, reason, kept, fact.text, fact.subject, fact.target_new, fact.target_true, fact.image)
    return dict(zip(_HEAD, values, strict=True))
