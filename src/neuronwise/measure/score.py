"""One number for how well a concept was suppressed and everything else retained."""

from __future__ import annotations


def suppression_score(suppression: float | None, retention: float | None) -> float | None:
    """The harmonic mean of suppression and retention, both shares in [0, 1]: high only when both are ([2S] §6, ours).

    None where either is unknown.
    """
    if suppression is None or retention is None:
        return None
    total = suppression + retention
    return 2 * suppression * retention / total if total else 0.0
