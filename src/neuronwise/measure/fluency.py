"""Fluency as n-gram entropy ([ROME], appendix on generation entropy): ours, and as released."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import chain

WORDS = re.compile(r"\w+|[^\w\s]")
SENTENCES = re.compile(r"(?<=[.!?])\s+")


def fluency(text: str) -> float:
    """The mean of 2/3·H₂ and 4/3·H₃, the entropies in bits of a text's bigrams and trigrams.

    A text that repeats itself scores low. Our choice: n-grams are of words and punctuation marks.
    """
    return _weighted(WORDS.findall(text))


def fluency_released(text: str) -> float:
    """The same over the words of NLTK's tokenizer, as in ROME's released code (``eval_utils_counterfact.py``).

    The text, prompt included, in Unicode's form NFKD, empty lines as a space. Sentences, which that tokenizer reads one
    by one, end at ".", "!" or "?" before a blank: the released code finds them by NLTK's punkt data, which differs
    after abbreviations alone.
    """
    from nltk.tokenize import NLTKWordTokenizer

    plain = unicodedata.normalize("NFKD", text).replace("\n\n", " ")
    return _weighted([*chain(*NLTKWordTokenizer().tokenize_sents(SENTENCES.split(plain)))])


def _weighted(words: Sequence[str]) -> float:
    return (2 / 3 * entropy(words, 2) + 4 / 3 * entropy(words, 3)) / 2


def entropy(words: Sequence[str], n: int) -> float:
    """−Σ p·log₂ p over the n-grams' frequencies; 0 for a text too short to have any."""
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values()) + 0.0
