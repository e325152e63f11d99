"""Answers that begin as they should, whatever follows."""

from __future__ import annotations

from neuronwise.answers.protocols.table import Protocol


def begins(text: str, answer: str) -> float:
    """1 where the text begins with the answer, in any case, else 0."""
    return float(text.strip().lower().startswith(answer.strip().lower()))


PROTOCOL = Protocol("begins", 5, ("\n",), begins, says="five tokens that begin with it", cites="our choice")
