"""A kind of evidence as one object: its function, its options, what a page says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from neuronwise.locate.method import keywords, options_as_taken, require_token


@dataclass(frozen=True)
class EvidenceMethod:
    """One way of asking what a word depends on; a file of this room defines one as ``METHOD``, ``EVIDENCE`` names it.

    ``function(run, targets, tokens, **options)`` → (targets, n) float32: for each target one number for each of the n
    parts of the photo that ``tokens`` names, large where the word depends on it. Its keyword-only parameters are what a
    user sets. ``meaning`` completes "Evidence: …", with {token} for the word; ``unit`` is that of the numbers;
    ``source`` the publication. ``signed``: whether numbers below 0 say that the part speaks against the word.
    """

    name: str
    function: Callable[..., Tensor]
    meaning: str
    unit: str
    source: str = ""
    signed: bool = True

    def __post_init__(self) -> None:
        require_token(self.name, self.meaning)

    @property
    def options(self) -> tuple[str, ...]:
        """The names of what a user can set."""
        return keywords(self.function)

    def check(self, options: Mapping[str, object]) -> dict[str, Any]:
        """The options as it takes them; raises ``MethodError`` for ones that it does not have, or of another kind."""
        return options_as_taken(self.name, self.options, self.function, options)
