"""What a study found and keeps beside its cases, and how questions that do not depend on each other are asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from neuronwise.study.progress import Progress

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]
"""A JSON object: one line of a file, or one row of a table (column → number, text, truth value, None, or a list)."""


class Notes:
    """Rows that only grow; of one with ``part``, ``key`` and ``value`` the value is found by the other two.

    In memory alone; a subclass says where else a row goes when it is added.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: list[Row] = []
        self._values: dict[tuple[str, str], Any] = {}
        self.learn(rows)

    def append(self, row: Row) -> None:
        """Add one row for good."""
        self.extend([row])

    def extend(self, rows: Sequence[Row]) -> None:
        """Add rows for good."""
        self.learn(rows)

    def learn(self, rows: Iterable[Row]) -> None:
        """Take in rows that are kept elsewhere already."""
        for row in rows:
            self.rows.append(row)
            if "key" in row:
                self._values[row["part"], row["key"]] = row["value"]

    def kept(self, part: str, key: str, make: Callable[[], T]) -> T:
        """What ``make()`` gives (plain JSON values), made once in the whole study, interruptions included."""
        if (part, key) not in self._values:
            self.append({"part": part, "key": key, "value": make()})
        return self._values[part, key]

    def holds(self, part: str, key: str) -> bool:
        """Whether there is such a row."""
        return (part, key) in self._values

    def of(self, part: str) -> Row:
        """The values of one part by their keys."""
        return {key: value for (own, key), value in self._values.items() if own == part}

    def ask(
        self, what: str, keys: Sequence[str], answer: Callable[[Sequence[str]], object], tell: Progress, batch: int = 1
    ) -> None:
        """Have questions answered that do not depend on each other; ``answer`` notes what it finds for some of them.

        ``what`` names them to the user; ``batch``: how many are answered together. Where there are several workers
        each answers a part of them (``workers.worker``). What has been noted meanwhile elsewhere is left to ``answer``
        to leave out (``look``).
        """
        for start in range(0, len(keys), batch):
            self.look(keys)
            answer(keys[start : start + batch])
            tell(what, min(start + batch, len(keys)), len(keys))

    def look(self, keys: Sequence[str]) -> None:
        """Take in what others have noted of some keys; here there are no others."""

    def dealt(self, keys: Sequence[str]) -> Sequence[str]:
        """The keys in the order in which they are best asked: where several ask, each begins elsewhere."""
        return keys
