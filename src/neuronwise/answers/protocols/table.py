"""What a protocol of free answers is, and the table of them, which loads no library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from neuronwise.errors import MethodError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from neuronwise.answers.questions import Question


@dataclass(frozen=True)
class Protocol:
    """How questions are asked freely, and what share of the right answer a text gives.

    ``length``: tokens that the model writes at most, greedily, up to its end token. Only what is before the first of
    ``stops`` counts. ``score(text, answer)`` is in [0, 1]; of several answers the best counts. ``prompt`` holds "{}" in
    place of the question. ``parts``: asked are the questions whose part begins so. ``best``: of several questions of
    one part the best counts (else their mean). ``says``: what figures call it; ``cites``: its source.
    """

    name: str
    length: int
    stops: tuple[str, ...]
    score: Callable[[str, str], float]
    says: str
    cites: str
    prompt: str = "{}"
    parts: tuple[str, ...] = ("",)
    best: bool = False

    def asks(self, question: Question) -> bool:
        """Whether a question is asked in this way."""
        return question.part.startswith(self.parts)

    def heard(self, text: str) -> str:
        """What of a text counts: all before the first stop."""
        ends = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text

    def right(self, text: str, answers: Sequence[str]) -> float:
        """The score of a text by the best of several answers."""
        return max(self.score(text, answer) for answer in answers)


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    {
        "wild": "neuronwise.answers.protocols.wild:PROTOCOL",
        "mquake": "neuronwise.answers.protocols.mquake:PROTOCOL",
        "unke": "neuronwise.answers.protocols.unke:PROTOCOL",
    },
    kind="neuronwise.answers.protocols.table:Protocol",
    group="neuronwise.protocols",
    error=MethodError,
)
