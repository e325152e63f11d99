"""Tables and figures of a study of localization: deletion and insertion curves, their areas, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from neuronwise.drawing.style import Figure, legend_beside, plain_log, plotting, styles
from neuronwise.drawing.tables import Estimate, Table
from neuronwise.measure import mean_interval
from neuronwise.study.results import Study

Rows = Sequence[Mapping[str, Any]]
WHAT = {"word": "words of captions", "fact": "facts of texts"}
FILLS = {"zero": "zero", "mean": "their mean activation"}
SHOWN = (1, 10, 100, 1000)


def tables(study: Study) -> list[Table]:
    return [
        table
        for (what, fill), rows in groups(study).items()
        for table in (_areas(rows, what, fill), _points(rows, what, fill))
    ]


def figures(study: Study) -> list[Figure]:
    return [_figure(rows, what, fill) for (what, fill), rows in groups(study).items()]


def groups(study: Study) -> dict[tuple[str, str], Rows]:
    """Rows by what was looked at and what neurons became, in the recipe's order."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for what in WHAT:
        for row in study.rows:
            if row["what"] == what:
                found.setdefault((what, row["fill"]), []).append(row)
    return dict(found)


def methods(rows: Rows) -> list[str]:
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


def _figure(rows: Rows, what: str, fill: str) -> Figure:
    count = len({row["case"] for row in rows})
    return Figure(
        f"curves-{what}-{fill}",
        f"Deletion and insertion: {WHAT[what]}, neurons set to {FILLS[fill]}",
        f"Two panels over the number of neurons K, one line a method: how much log p of {count} {WHAT[what]} drops "
        "without the first K neurons, and how much of it they give back alone. The numbers are in the tables.",
        partial(_draw, rows),
        f"Mean over {count} {WHAT[what]}; bands are 95 % bootstrap intervals. Gray and broken: random neurons.",
    )


def _draw(rows: Rows) -> Any:
    names = methods(rows)
    looks = styles(names)
    with plotting() as pyplot:
        figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.4))
        titles = ("deletion: without the first K neurons", "insertion: with only the first K neurons")
        labels = ("log p lost, nats (up is better)", "log p given back, nats (up is better)")
        for panel, curve, title, label in zip(panels, (drops, gains), titles, labels, strict=True):
            counts = rows[0]["counts"]
            for name in names:
                own = [curve(row) for row in rows if row["method"] == name]
                points = [mean_interval(values) for values in zip(*own, strict=True)]
                kept = [point for point in points if point is not None]
                panel.plot(counts, [point.mean for point in kept], label=name, **looks[name])
                lows, highs = [point.low for point in kept], [point.high for point in kept]
                panel.fill_between(counts, lows, highs, color=looks[name]["color"], alpha=0.07, linewidth=0)
            panel.set(xscale="log", xlabel="neurons, K", ylabel=label, title=title)
            plain_log(panel.xaxis, [count for count in counts if str(count)[0] == "1"] or counts)
        legend_beside(figure, panels[0])
    return figure
