"""WILD (Yang et al. 2025, "The Mirage of Model Editing", arXiv:2502.11177): answers as they come, where they end."""

from __future__ import annotations

import re
import string

from neuronwise.answers.protocols.table import Protocol

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """A text in lower case without punctuation (ASCII), articles and superfluous blanks, as in SQuAD's evaluation."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(text: str, answer: str) -> float:
    """1 where both are the same ``normalized``, else 0."""
    return float(normalized(text) == normalized(answer))


# The question alone, at most 50 greedy tokens, up to a full stop, a new line or the end token. The released code takes
# exact match where no judge is named; a judge is a model of somebody else's, so it is always taken here.
PROTOCOL = Protocol(
    "wild", 50, (".", "\n"), exact_match, says="WILD: free, up to a natural stop, exact match",
    cites="arXiv:2502.11177",
)  # fmt: skip
