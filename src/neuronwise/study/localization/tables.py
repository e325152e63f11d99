"""Tables of a study of localization: areas and points of deletion and insertion curves, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuronwise.drawing.tables import Estimate, Table
from neuronwise.measure import mean_interval
from neuronwise.study.kind import Study

Rows = Sequence[Mapping[str, Any]]
WHAT = {"word": "words of captions", "fact": "facts of texts"}
FILLS = {"zero": "zero", "mean": "their mean activation"}
SHOWN = (1, 10, 100, 1000)


def tables(study: Study) -> list[Table]:
    """Areas and points of the curves, for words and facts and each fill."""
    return [
        table
        for (what, fill), rows in groups(study).items()
        for table in (_areas(rows, what, fill), _points(rows, what, fill))
    ]


def groups(study: Study) -> dict[tuple[str, str], Rows]:
    """Rows by what was looked at and what neurons became, in the recipe's order."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for what in WHAT:
        for row in study.rows:
            if row["what"] == what:
                found.setdefault((what, row["fill"]), []).append(row)
    return dict(found)


def methods(rows: Rows) -> list[str]:
    """The methods' names, in order."""
    return list(dict.fromkeys(row["method"] for row in rows))


def drops(row: Mapping[str, Any]) -> list[float]:
    """What the word lost without the first K neurons, nats."""
    return [row["before"] - value for value in row["deletion"]]


def gains(row: Mapping[str, Any]) -> list[float]:
    """What the first K neurons give back when all others are gone, nats."""
    return [value - row["none"] for value in row["insertion"]]


def _areas(rows: Rows, what: str, fill: str) -> Table:
    body = []
    for name in methods(rows):
        own = [row for row in rows if row["method"] == name]
        body.append(
            [
                name,
                Estimate.of(mean_interval(row["deletion_area"] for row in own)),
                Estimate.of(mean_interval(row["insertion_area"] for row in own)),
                Estimate(sum(row["found"] for row in own) / len(own), digits=0),
                Estimate(sum(row["seconds_finding"] for row in own) / len(own)),
                len(own),
            ]
        )
    counts = rows[0]["counts"]
    return Table(
        f"areas-{what}-{fill}",
        f"Area under the curves: {WHAT[what]}, neurons set to {FILLS[fill]}",
        ("method", "deletion area, nats", "insertion area, nats", "neurons ranked", "CPU s a word", "words"),
        body,
        f"Mean height over log K, K = {counts[0]} to {counts[-1]}, with 95 % bootstrap interval over words. Deletion: "
        "how much log p of the word drops without the first K neurons. Insertion: how much of it they give back when "
        "all other feed-forward neurons are taken away. Large is good. Seconds: of the scoring alone, all threads "
        "together.",
    )


def _points(rows: Rows, what: str, fill: str) -> Table:
    counts = [count for count in SHOWN if count in rows[0]["counts"]] or list(rows[0]["counts"])
    body = []
    for name in methods(rows):
        own = [row for row in rows if row["method"] == name]
        cells = [
            Estimate.of(mean_interval(curve(row)[row["counts"].index(count)] for row in own))
            for curve in (drops, gains)
            for count in counts
        ]
        body.append([name, *cells])
    columns = [f"{part}, K = {count}" for part in ("drop", "gain") for count in counts]
    return Table(
        f"points-{what}-{fill}",
        f"Points of the curves: {WHAT[what]}, neurons set to {FILLS[fill]}",
        ("method", *columns),
        body,
        "Nats of log p of the word: lost without the first K neurons (drop), given back by them alone (gain).",
    )
