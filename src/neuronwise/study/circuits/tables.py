"""Tables of a study of circuits: areas, their differences on the same cases, and points of the curves."""

from __future__ import annotations

import numpy as np

from neuronwise.drawing.tables import Estimate, Table
from neuronwise.measure.bootstrap import Mean, interval_of_means
from neuronwise.measure.circuits import Numbers, areas
from neuronwise.study.kind import Study
from neuronwise.study.rows import Rows, average, by, where
from neuronwise.study.store import Row

WHAT = {"word": "words of captions", "fact": "facts of texts"}
FILLS = {"mean": "their usual value", "zero": "zero", "twin": "their value in the twin"}
PARTS = {"faithfulness": "kept", "completeness": "left"}
NOTES = {
    "faithfulness": "What the first K nodes carry alone: 1 is the whole lead of the word over its alternatives.",
    "completeness": "What is left of the lead without the first K nodes: 0 is nothing.",
}
RATIO = "The ratio of the means over cases, with its 95 % bootstrap interval over cases"


def tables(study: Study) -> list[Table]:
    """For words and facts and each fill: areas, differences to the first method, and the two curves."""
    return [
        table
        for (what, fill), rows in groups(study).items()
        for table in (
            _areas(rows, what, fill),
            _differences(rows, what, fill),
            *(_points(rows, what, fill, part) for part in PARTS),
        )
    ]


def groups(study: Study) -> dict[tuple[str, str], list[Row]]:
    """Rows by what was looked at and what other neurons became, words first."""
    return by((row for what in WHAT for row in where(study.rows, what=what)), "what", "fill")


def shared_counts(rows: Rows) -> list[int]:
    """The numbers of nodes that every case has."""
    return [count for count in rows[0]["counts"] if all(count in row["counts"] for row in rows)]


def point(rows: Rows, part: str, count: int) -> Mean:
    """Faithfulness or completeness of K nodes: the ratio of the mean gains over nothing kept, of them and of all."""
    pairs = [[_gain(row, part, count), row["whole"] - row["nothing"]] for row in rows]
    return interval_of_means(np.array(pairs), lambda means: means[:, 0] / means[:, 1])


def _gain(row: Row, part: str, count: int) -> float:
    return row[PARTS[part]][row["counts"].index(count)] - row["nothing"]


def _areas(rows: Rows, what: str, fill: str) -> Table:
    counts = shared_counts(rows)
    body = []
    for name, own in by(rows, "method").items():
        columns = np.array(
            [
                [row["whole"] - row["nothing"], *(_gain(row, "faithfulness", count) for count in counts)]
                + [count / row["nodes"] for count in counts]
                for row in own
            ]
        )

        def both(means: Numbers) -> tuple[Numbers, Numbers]:
            return areas(means[:, 1 + len(counts) :], means[:, 1 : 1 + len(counts)] / means[:, :1])

        cells = [Estimate.of(interval_of_means(columns, lambda means, at=at: both(means)[at]), 3) for at in range(2)]
        body.append([name, *cells, average(own, "seconds_finding"), len(own)])
    return Table(
        f"areas-{what}-{fill}",
        f"Areas: {WHAT[what]}, other neurons set to {FILLS[fill]}",
        ("method", "CPR", "CMD", "CPU s", "cases"),
        body,
        "Over the share of (neuron, position) pairs kept, as in the MIB benchmark: CPR is the area under faithfulness "
        f"(large is good), CMD the area between it and 1 (small is good). {RATIO}.",
    )


def _differences(rows: Rows, what: str, fill: str) -> Table:
    methods = by(rows, "method")
    first, *others = methods
    base = {row["case"]: row for row in methods[first]}
    counts = shared_counts(rows)
    body = []
    for name in others:
        pairs = [(base[row["case"]], row) for row in methods[name] if row["case"] in base]
        cells = []
        for count in counts:
            gains = [
                [_gain(one, "faithfulness", count) - _gain(other, "faithfulness", count), one["whole"] - one["nothing"]]
                for one, other in pairs
            ]
            cells.append(Estimate.of(interval_of_means(np.array(gains), lambda means: means[:, 0] / means[:, 1])))
        body.append([name, *cells, len(pairs)])
    return Table(
        f"differences-{what}-{fill}",
        f"Faithfulness of {first} less that of others: {WHAT[what]}, other neurons set to {FILLS[fill]}",
        (f"{first} less", *(f"K = {count}" for count in counts), "cases"),
        body,
        f"On the same cases; above 0 {first} is better. {RATIO}.",
    )


def _points(rows: Rows, what: str, fill: str, part: str) -> Table:
    counts = shared_counts(rows)
    body = [
        [name, *(Estimate.of(point(own, part, count)) for count in counts), len(own)]
        for name, own in by(rows, "method").items()
    ]
    return Table(
        f"{part}-{what}-{fill}",
        f"{part.capitalize()}: {WHAT[what]}, other neurons set to {FILLS[fill]}",
        ("method", *(f"K = {count}" for count in counts), "cases"),
        body,
        f"{NOTES[part]} {RATIO}.",
    )
