"""Figures of a study of circuits: faithfulness and completeness over the number of nodes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from neuronwise.drawing.style import Figure, band, legend_beside, plain_log, plotting, styles
from neuronwise.study.circuits.tables import FILLS, WHAT, groups, point, shared_counts
from neuronwise.study.kind import Study
from neuronwise.study.rows import Rows, by

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

PANELS = {
    "faithfulness": ("faithfulness: with the first K nodes alone", "share of the lead (up is better)"),
    "completeness": ("completeness: without the first K nodes", "share of the lead left (down is better)"),
}


def figures(study: Study) -> list[Figure]:
    """Curves, for words and facts and each fill."""
    return [_curves(rows, what, fill) for (what, fill), rows in groups(study).items() if shared_counts(rows)]


def _curves(rows: Rows, what: str, fill: str) -> Figure:
    count = len({row["case"] for row in rows})
    return Figure(
        f"circuits-{what}-{fill}",
        f"Circuits: {WHAT[what]}, other neurons set to {FILLS[fill]}",
        f"Two panels over the number of nodes K, one line a method: how much of the lead of {count} {WHAT[what]} the "
        "first K nodes carry alone, and how much is left without them. The numbers are in the tables.",
        partial(_draw, rows),
        f"Mean over {count} {WHAT[what]}; bands are 95 % bootstrap intervals. A node is a neuron at a position.",
    )


def _draw(rows: Rows) -> Drawing:
    methods, counts = by(rows, "method"), shared_counts(rows)
    looks = styles(list(methods))
    with plotting() as pyplot:
        figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.4))
        for axis, (part, (title, label)) in zip(axes, PANELS.items(), strict=True):
            for name, own in methods.items():
                points = [point(own, part, count) for count in counts]
                band(axis, counts, points, name, looks[name], 0.07)
            axis.set(xscale="log", xlabel="nodes, K", ylabel=label, title=title)
            plain_log(axis.xaxis, counts)
        legend_beside(figure, axes[0])
    return figure
