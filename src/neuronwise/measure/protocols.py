"""Figures of answers that were asked for by a protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from neuronwise.answers.protocols.table import PROTOCOLS
from neuronwise.answers.questions import Question
from neuronwise.measure.figures import LOCALITY, PORTABILITY, Figures

Texts = Mapping[str, Sequence[str]]  # by protocol, one text for each question that it asks


def protocol_figures(questions: Sequence[Question], after: Texts, before: Texts | None = None) -> Figures:
    """Each figure of one case by its name, which ends in the protocol's.

    ``questions`` are all of the case. A kind of locality is the share of texts that are as ``before``; any other part
    is the mean score of its texts, or their best where the protocol says so.
    """
    found: Figures = {}
    for name, texts in after.items():
        protocol = PROTOCOLS[name]
        asked = [question for question in questions if protocol.asks(question)]
        values: dict[str, list[float]] = {}
        for place, (question, text) in enumerate(zip(asked, texts, strict=True)):
            if not question.part.startswith(LOCALITY):
                values.setdefault(question.part, []).append(protocol.right(text, question.answers))
            elif before is not None:
                values.setdefault(question.part, []).append(float(text == before[name][place]))
        parts = {part: max(own) if protocol.best else fmean(own) for part, own in values.items()}
        found |= {f"{part}_{name}": value for part, value in parts.items()}
        for group in (PORTABILITY, LOCALITY):
            kinds = [value for part, value in parts.items() if part.startswith(group)]
            if kinds:
                found[f"{group}{name}"] = fmean(kinds)
    return found
