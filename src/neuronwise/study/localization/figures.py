"""Figures of a study of localization: deletion and insertion curves."""

from __future__ import annotations

from functools import partial
from typing import Any

from neuronwise.drawing.style import Figure, legend_beside, plain_log, plotting, styles
from neuronwise.measure import mean_interval
from neuronwise.study.kind import Study
from neuronwise.study.localization.tables import FILLS, WHAT, Rows, drops, gains, groups, methods


def figures(study: Study) -> list[Figure]:
    """Curves, for words and facts and each fill."""
    return [_figure(rows, what, fill) for (what, fill), rows in groups(study).items()]


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
