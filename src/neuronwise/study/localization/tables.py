"""Tables of a study of localization: areas and points of deletion and insertion curves, and what they cost."""

from __future__ import annotations

import math

from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.measure.localization import area
from neuronwise.study.kind import Study
from neuronwise.study.localization.map_tables import map_tables
from neuronwise.study.rows import Rows, average, by, mean, where
from neuronwise.study.store import Row

WHAT = {"word": "words of captions", "fact": "facts of texts"}
FILLS = {"zero": "zero", "mean": "their mean activation"}
SHOWN = (1, 10, 100, 1000)


def tables(study: Study) -> list[Table]:
    """Areas and points of the curves, for words and facts and each fill, and maps over photos."""
    curves = [
        table
        for (what, fill), rows in groups(study).items()
        for table in (_areas(rows, what, fill), _points(rows, what, fill), *_losses(rows, what, fill))
    ]
    return curves + map_tables(study)


def groups(study: Study) -> dict[tuple[str, str], Rows]:
    """Rows by what was looked at and what neurons became, in the recipe's order."""
    return {key: rows for what in WHAT for key, rows in by(where(study.rows, what=what), "what", "fill").items()}


def drops(row: Row) -> list[float]:
    """What the word lost without the first K neurons, nats."""
    return [row["before"] - value for value in row["deletion"]]


def gains(row: Row) -> list[float]:
    """What the first K neurons give back when all others are gone, nats."""
    return [value - row["none"] for value in row["insertion"]]


def _areas(rows: Rows, what: str, fill: str) -> Table:
    body: list[list[Cell]] = [
        [
            name,
            mean(own, "deletion_area"),
            mean(own, "insertion_area"),
            average(own, "found", digits=0),
            average(own, "seconds_finding"),
            len(own),
        ]
        for name, own in by(rows, "method").items()
    ]
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
    for name, own in by(rows, "method").items():
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


def lost(row: Row) -> list[float]:
    """The share of the word's probability that is lost without the first K neurons."""
    return [1 - math.exp(value - row["before"]) for value in row["deletion"]]


def lost_by_others(row: Row) -> list[float]:
    """The same of other facts."""
    return row["others"]


def _losses(rows: Rows, what: str, fill: str) -> list[Table]:
    """Shares of probability, where other facts were asked too."""
    if not all("others" in row for row in rows):
        return []
    counts = rows[0]["counts"]
    found = []
    for part, curve in (("lost", lost), ("lost by other facts", lost_by_others)):
        body: list[list[Cell]] = []
        for name, own in by(rows, "method").items():
            cells = [Estimate.of(mean_interval(values)) for values in zip(*map(curve, own), strict=True)]
            body.append([name, *cells, Estimate.of(mean_interval(area(counts, curve(row)) for row in own))])
        found.append(
            Table(
                f"{part.replace(' ', '-')}-{what}-{fill}",
                f"Share of the answer's probability {part}",
                ("method", *(f"K = {count}" for count in counts), "area"),
                body,
                f"1 − p after / p before of the answer's first token, neurons set to {FILLS[fill]}, mean over "
                f"{WHAT[what]} with 95 % bootstrap interval. Negative: it became more probable. Area: mean height over "
                "log K.",
            )
        )
    return found
