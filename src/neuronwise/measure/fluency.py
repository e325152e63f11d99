"""Fluency as n-gram entropy ([ROME], appendix on generation entropy)."""

from __future__ import annotations

import math
import re
from collections import Counter

WORDS = re.compile(r"\w+|[^\w\s]")


def fluency(text: str) -> float:
    """The mean of 2/3·H₂ and 4/3·H₃, the entropies in bits of a text's bigrams and trigrams.

    A text that repeats itself scores low. Our choice: n-grams are of words and punctuation marks.
    """
    words = WORDS.findall(text)
    return (2 / 3 * entropy(words, 2) + 4 / 3 * entropy(words, 3)) / 2


def entropy(words: list[str], n: int) -> float:
    """−Σ p·log₂ p over the n-grams' frequencies; 0 for a text too short to have any."""
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values()) + 0.0
