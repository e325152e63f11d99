"""Long answers, as UnKEBench measures them (Deng et al. 2024, arXiv:2405.15349)."""

from __future__ import annotations

import re

from neuronwise.answers.protocols.table import Protocol

_WORD = re.compile(r"[^\W_]+")


def rouge_l_recall(text: str, answer: str) -> float:
    """The share of the answer's words that the text has in the same order, other words between (Lin 2004, ROUGE-L)."""
    said, right = (_WORD.findall(one.lower()) for one in (text, answer))
    if not right:
        return 0.0
    longest = [0] * (len(right) + 1)  # common subsequence of what was said so far and each beginning of the answer
    for word in said:
        before = 0
        for place, wanted in enumerate(right, 1):
            kept = longest[place]
            longest[place] = before + 1 if word == wanted else max(kept, longest[place - 1])
            before = kept
    return longest[-1] / len(right)


PROTOCOL = Protocol(
    "unke", 512, (), rouge_l_recall, says="long answers: free, ROUGE-L recall", cites="arXiv:2405.15349",
    parts=("success", "generality", "portability"),
)  # fmt: skip
