"""Edits made one after another and measured on the way: after which of them, and what the measured cases are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from neuronwise.data.facts import FactCase
from neuronwise.errors import StudyError
from neuronwise.study.store import Row

Every: TypeAlias = int | tuple[int, ...]
"""After every so many edits, or after the first, the tenth, … of them."""


class Asked(NamedTuple):
    """A case that is asked when ``edits`` edits are in the model, ``last`` of their row or not.

    ``edit``: the number of the edit that learned it, from 1; None for a case that could not be asked before.
    """

    editor: str
    case: FactCase
    edits: int
    edit: int | None
    last: bool

    def key(self, several: bool) -> str:
        """The id of the case in the study: that of its fact; a longer one for what is asked on the way."""
        own = self.case.id if self.last else f"{self.case.id} (after {self.edits} edits)"
        return f"{self.editor}/{own}" if several else own

    def head(self) -> Row:
        """What its line holds beside the answers."""
        return {"case": self.case.id, "edits": self.edits, "edit": self.edit, "last": self.last}


def parse_every(text: str) -> Every:
    """ "10" → 10, "1,10,100" → (1, 10, 100); raises ``StudyError`` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise StudyError(f"every is {text!r}; give a number of edits such as 10, or several such as 1,10,100.")
    return checked_every(int(parts[0]) if len(parts) == 1 else tuple(map(int, parts)))


def checked_every(every: int | Sequence[int]) -> Every:
    """The numbers in order, each once; raises ``StudyError`` for anything but whole numbers from 1."""
    numbers: Sequence[object] = [every] if isinstance(every, int) else every if isinstance(every, (list, tuple)) else ()
    if not numbers or any(type(number) is not int or number < 1 for number in numbers):
        raise StudyError(f"every is {every!r}; give whole numbers of edits, 1 or more.")
    return every if isinstance(every, int) else tuple(sorted(set(every)))


def stops(every: Every | None, edits: int) -> list[int]:
    """After how many of ``edits`` edits in a row the facts so far are asked; after the last they always are."""
    if every is None:
        return [edits]
    between = range(every, edits, every) if isinstance(every, int) else [n for n in every if n < edits]
    return [*between, edits]


def asked_in_row(
    editor: str, cases: Sequence[FactCase], failed: Sequence[str], batch: int, every: Every | None
) -> list[Asked]:
    """Everything that is asked of one row of edits, ``batch`` facts in each; cases that ``failed`` before take no part
    in it and are listed at its end."""
    able = [case for case in cases if case.id not in failed]
    number = {case.id: 1 + place // batch for place, case in enumerate(able)}
    *between, last = stops(every, -(-len(able) // batch))
    found = [Asked(editor, case, edits, number[case.id], False) for edits in between for case in able[: edits * batch]]
    return [*found, *(Asked(editor, case, last, number.get(case.id), True) for case in cases)]
