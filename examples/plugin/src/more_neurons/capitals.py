"""Names as the nouns of a text."""

from __future__ import annotations

import re


def capitals(text: str) -> list[str]:
    """The words with a capital letter that do not begin a sentence, each once."""
    return list(dict.fromkeys(re.findall(r"(?<![.!?] )(?<!^)\b[A-Z]\w+", text)))
