"""What is a word of its own, in scripts with blanks between words and in those without."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Thai, Lao, Tibetan, Burmese, Khmer, Chinese and Japanese, with their punctuation.
SPACELESS = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)


def whole_word(pattern: str) -> str:
    """A pattern that finds words of their own, see ``apart``; without blanks between words it finds them anywhere."""
    return pattern if SPACELESS.search(pattern) else apart(pattern)


def apart(pattern: str) -> str:
    """A pattern that finds what is not a part of a longer word, nor of a hyphenated one."""
    letter = rf"[\w{_marks()}]"
    return rf"(?<!{letter})(?<!{letter}['’‐‑-])(?:{pattern})(?!(?<={letter})(?:{letter}|[‐‑-]\w|[+#]|\.\d))"


@cache
def _marks() -> str:
    """Accents and vowel signs that are put on letters, which ``\\w`` lacks; as ranges, which compile quickly."""
    marks = {code for code in range(0x300, 0x20000) if unicodedata.category(chr(code))[0] == "M"}
    first = sorted(code for code in marks if code - 1 not in marks)
    last = sorted(code for code in marks if code + 1 not in marks)
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in zip(first, last, strict=True))
