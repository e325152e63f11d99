"""The finished cases of a study: in memory, or in a file that may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict, overload

from neuronwise.errors import StudyError
from neuronwise.files import Lines, from_json, read_lines
from neuronwise.files.kinds import misfits
from neuronwise.study.notes import Row


class _Case(TypedDict):
    """A line of ``cases.jsonl``, as far as every kind of study has it."""

    id: str
    status: NotRequired[str]


class Cases(Protocol):
    """The line of each finished case, by its id."""

    def __len__(self) -> int: ...

    def __contains__(self, name: object, /) -> bool: ...

    def __iter__(self) -> Iterator[str]:
        """The ids, as they were finished."""
        ...

    def read(self, names: Iterable[str]) -> Iterator[Row]:
        """The lines of some cases, one after another."""
        ...

    def extend(self, lines: Sequence[Row]) -> None:
        """Add lines for good."""
        ...


class CasesInMemory:
    """The lines of cases by their ids."""

    def __init__(self, lines: Iterable[Row] = ()) -> None:
        self._lines = {str(line["id"]): line for line in lines}

    def __len__(self) -> int:
        return len(self._lines)

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def read(self, names: Iterable[str]) -> Iterator[Row]:
        """The lines of some cases, one after another."""
        return (self._lines[name] for name in names)

    def extend(self, lines: Sequence[Row]) -> None:
        """Add lines."""
        self._lines |= {str(line["id"]): line for line in lines}


class CaseFile:
    """The lines of ``path``, which stay on the disk; in memory is where each begins.

    ``write`` opens it for this process alone; without it another may be writing. A line that is there twice counts
    once. Raises ``StudyError`` for a damaged file, and for a case with two results.
    """

    def __init__(self, path: Path, write: bool = False) -> None:
        self.path = path
        self._starts: dict[str, int] = {}
        self._taken = 0
        self._lines: Lines | None = None
        if write:
            self._lines = Lines(path, StudyError, self._take)
        else:
            for row, start, _ in read_lines(path):
                self._take(row, start)

    def _take(self, row: Row, start: int) -> None:
        self._taken += 1
        if wrong := misfits(row, _Case):
            raise StudyError(f"Line {self._taken} of '{self.path}' is damaged ({wrong}); name a new folder.")
        first = self._starts.setdefault(row["id"], start)
        if first != start and next(self.read([row["id"]])) != row:
            raise StudyError(
                f"'{self.path}' holds two results of the case {row['id']!r}; delete the line that is wrong."
            )

    def __len__(self) -> int:
        return len(self._starts)

    def __contains__(self, name: object) -> bool:
        return name in self._starts

    def __iter__(self) -> Iterator[str]:
        return iter(self._starts)

    def read(self, names: Iterable[str]) -> Iterator[Row]:
        """The lines of some cases, one after another; raises ``StudyError`` where the file has gone or changed."""
        try:
            with self.path.open("rb") as file:
                for name in names:
                    file.seek(self._starts[name])
                    yield from_json(file.readline(), finite=True)
        except (OSError, ValueError) as error:
            raise StudyError(f"'{self.path}' cannot be read: it has been changed or taken away.") from error

    def extend(self, lines: Sequence[Row]) -> None:
        """Write lines and wait once until the disk has them all."""
        assert self._lines is not None, "it was opened to be read"
        self._lines.extend(lines)

    def close(self) -> None:
        """Let other processes write it."""
        if self._lines is not None:
            self._lines.close()


class Lazy(Sequence[Row]):
    """``count`` rows that ``read`` gives when they are first asked for, and that are then held."""

    def __init__(self, count: int, read: Callable[[], Iterable[Row]]) -> None:
        self._count, self._read = count, read
        self._rows: list[Row] | None = None

    def _held(self) -> list[Row]:
        if self._rows is None:
            self._rows = list(self._read())
        return self._rows

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        return iter(self._held())

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self._held()[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Lazy, list)) and self._held() == list(other)

    def __repr__(self) -> str:
        return repr(self._held())

    __hash__ = None  # type: ignore[assignment]
