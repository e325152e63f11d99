"""Figures of a study of localization: deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from neuronwise.drawing.style import Figure, band, legend_beside, plain_log, plotting, styles
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.study.kind import Study
from neuronwise.study.localization.tables import (
    FILLS,
    WHAT,
    drops,
    gains,
    groups,
    lost,
    lost_by_others,
)
from neuronwise.study.rows import Rows, by
from neuronwise.study.store import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


class Panel(NamedTuple):
    """One panel: what it shows of a row, its title and its axis."""

    curve: Callable[[Row], list[float]]
    title: str
    label: str


CURVES = (
    Panel(drops, "deletion: without the first K neurons", "log p lost, nats (up is better)"),
    Panel(gains, "insertion: with only the first K neurons", "log p given back, nats (up is better)"),
)
LOSSES = (
    Panel(lost, "the fact's own answer", "share of the probability lost"),
    Panel(lost_by_others, "the answers of other facts", "share of the probability lost"),
)


def figures(study: Study) -> list[Figure]:
    """Curves, for words and facts and each fill."""
    found = [_curves(rows, what, fill) for (what, fill), rows in groups(study).items()]
    return found + [
        _losses(rows, what, fill)
        for (what, fill), rows in groups(study).items()
        if all("others" in row for row in rows)
    ]


def _curves(rows: Rows, what: str, fill: str) -> Figure:
    count = len(by(rows, "case"))
    return Figure(
        f"curves-{what}-{fill}",
        f"Deletion and insertion: {WHAT[what]}, neurons set to {FILLS[fill]}",
        f"Two panels over the number of neurons K, one line a method: how much log p of {count} {WHAT[what]} drops "
        "without the first K neurons, and how much of it they give back alone. The numbers are in the tables.",
        partial(_draw, rows, CURVES),
        f"Mean over {count} {WHAT[what]}; bands are 95 % bootstrap intervals. Gray and broken: random neurons.",
    )


def _losses(rows: Rows, what: str, fill: str) -> Figure:
    count = len(by(rows, "case"))
    return Figure(
        f"lost-{what}-{fill}",
        f"What facts lose: neurons set to {FILLS[fill]}",
        f"Two panels over the number of neurons K, one line a method: the share of the answer's probability that "
        f"{count} facts lose without the first K neurons, and what other facts lose. The numbers are in the tables.",
        partial(_draw, rows, LOSSES),
        f"Mean over {count} facts; bands are 95 % bootstrap intervals. Gray and broken: random neurons.",
    )


def _draw(rows: Rows, panels: Sequence[Panel]) -> Drawing:
    named = by(rows, "method")
    looks = styles(list(named))
    counts = rows[0]["counts"]
    with plotting() as pyplot:
        figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.4))
        for axis, panel in zip(axes, panels, strict=True):
            for name, own in named.items():
                points = [mean_interval(values) for values in zip(*map(panel.curve, own), strict=True)]
                band(axis, counts, points, name, looks[name], 0.07)
            axis.set(xscale="log", xlabel="neurons, K", ylabel=panel.label, title=panel.title)
            plain_log(axis.xaxis, [count for count in counts if str(count)[0] == "1"] or counts)
        legend_beside(figure, axes[0])
    return figure
