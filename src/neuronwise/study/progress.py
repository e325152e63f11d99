"""How a long run reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is done, how many of it, of how many


def silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
