"""Words that a caption shares with its references."""

from __future__ import annotations

from neuronwise.measure.metrics import Listed, Metric, Scored


def shared(references: Listed, captions: Listed) -> Scored:
    """The share of a caption's words that any reference has: the mean, and one number for each caption."""
    each = []
    for number, (caption,) in captions.items():
        known = {word for reference in references[number] for word in reference.split()}
        words = caption.split()
        each.append(sum(word in known for word in words) / max(len(words), 1))
    return [sum(each) / len(each)], [each]


METRIC = Metric("shared-words", shared, source="our choice")
