"""Tables of a study of probes: how well each tells the labels beside its controls, and the neurons that it uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neuronwise.data.photos.pope import NEGATIVES
from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.judged import judged
from neuronwise.study.kind import Study
from neuronwise.study.rows import by, where
from neuronwise.study.store import Row

ASKED = {"nouns": "Is a noun of the caption hallucinated?", "pope": "Is the object in the photo?"}
SHOWN = 10  # neurons of a probe


def tables(study: Study) -> list[Table]:
    """For each question how well probes tell it, then the first neurons of each probe."""
    found = []
    for asked, rows in by(study.rows, "asked").items():
        found.append(_told(asked, rows))
        if asked == "pope":
            found.append(_by_kind(rows))
        found += [_neurons(row) for row in where(rows, part="held out") if row["neurons"]]
    return found


def _told(asked: str, rows: Sequence[Row]) -> Table:
    body = []
    for row in rows:
        neurons = len(row["neurons"]) if row.get("neurons") else None
        body.append([row["features"], row["part"], *_figures(row, range(len(row["labels"]))), neurons])
    return Table(
        f"probe-{asked}",
        ASKED[asked],
        ("features", "judged on", "accuracy", "AUROC", "commonest label", "cases", "true", "neurons used"),
        body,
        "Sparse logistic regression on the features of all neurons where the word is predicted; 95 % bootstrap "
        "intervals over photos. Held out: each photo by probes that saw neither it nor its label. Shuffled labels: the "
        "same procedure where there is nothing to find. Commonest label: the accuracy of always saying it.",
    )


def _by_kind(rows: Sequence[Row]) -> Table:
    """Questions with each kind of absent objects: POPE's three settings."""
    body = []
    for row in rows:
        for kind in NEGATIVES:
            chosen = [place for place, one in enumerate(row["kinds"]) if one in ("present", kind)]
            if row["part"] != "shuffled labels" and any(row["kinds"][place] == kind for place in chosen):
                says_yes = float(np.mean([row["probabilities"][place] > 0.5 for place in chosen]))
                cells = _figures(row, chosen)
                body.append([f"{row['features']}, {row['part']}", kind, *cells[:2], Estimate(says_yes), *cells[3:]])
    return Table(
        "probe-pope-kinds",
        "The same by how absent objects were chosen",
        ("features", "absent objects", "accuracy", "AUROC", "share of yes", "questions", "true"),
        body,
        "Half of the questions of each kind are about objects that are there, the same for all kinds.",
    )


def _figures(row: Row, places: Sequence[int]) -> list[Cell]:
    """Accuracy, AUROC, the commonest label's share, the number of cases and of true ones."""
    labels = np.array([row["labels"][place] for place in places], dtype=bool)
    order = {photo: number for number, photo in enumerate(dict.fromkeys(row["photos"]))}
    groups = np.array([order[row["photos"][place]] for place in places])
    found = judged(labels, np.array([row["probabilities"][place] for place in places]), groups)
    return [
        Estimate.of(found.accuracy),
        Estimate.of(found.auroc),
        Estimate(found.commonest),
        len(labels),
        int(labels.sum()),
    ]


def _neurons(row: Row) -> Table:
    listed = list(zip(row["neurons"], row["weights"], row["raises"], strict=False))[:SHOWN]
    body = [[name, Estimate(weight, digits=3), " ".join(map(repr, tokens))] for name, weight, tokens in listed]
    return Table(
        f"probe-{row['asked']}-{''.join(c if c.isalnum() else '-' for c in row['features'])}",
        f"Neurons of the probe: {ASKED[row['asked']]} {row['features']}",
        ("neuron", "weight", "its value vector's tokens"),
        body,
        f"The first of {len(row['neurons'])}, by the size of their weight on standardized features; above 0 it speaks "
        "for yes.",
    )
