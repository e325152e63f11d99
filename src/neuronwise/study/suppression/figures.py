"""The figure of a study of suppression: what a method takes away against what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from neuronwise.drawing.style import INK, Figure, legend_beside, plotting, styles
from neuronwise.study.kind import Study
from neuronwise.study.rows import Rows, by, mean, where
from neuronwise.study.suppression.tables import ROLES, cells, label_of, slug, tested

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


def figures(study: Study) -> list[Figure]:
    """Suppression against retention, one figure for each intervention."""
    swept = [one["name"] or one["method"] for one in study.recipe["methods"] if one.get("sweep")]
    return [_figure(rows, intervention, swept) for intervention, rows in by(study.rows, "intervention").items()]


def _figure(rows: Rows, intervention: str, swept: Sequence[str]) -> Figure:
    photos = ROLES[tested(rows)]
    count = len(by(where(rows, role=tested(rows)), "concept", "photo"))
    return Figure(
        f"suppression-{slug(intervention)}",
        f"Suppression against retention ({intervention})",
        f"Scatter of suppression over retention, one line of points a method with K growing along it, for {count} "
        f"{photos}, and over the captions of photos without the concept that stay as they were, where there are such. "
        "The numbers are in the tables.",
        partial(_draw, rows, swept),
        f"{photos.capitalize()} ({count}); small to large points: few to many neurons, ringed: as many as the filter "
        "found. The upper right corner is best. Gray and broken: random neurons.",
    )


def _draw(rows: Rows, swept: Sequence[str]) -> Drawing:
    """A line of points a method; the many settings of a sweep are points of one look."""
    labels = {row["method"]: label_of(row["method"], swept) for row in rows}
    looks = styles(list(dict.fromkeys(labels.values())))
    points = _points(rows)
    sides = [(2, "other nouns still named (share)", ROLES[tested(rows)])]
    if where(rows, role="without"):
        sides.append((3, "captions unchanged without the concept (share)", "against side effects on other photos"))
    with plotting() as pyplot:
        figure, axes = pyplot.subplots(1, len(sides), figsize=(1 + 4.5 * len(sides), 4.6), sharey=True, squeeze=False)
        panels = list(axes[0])
        labeled: set[str] = set()
        for name, label in labels.items():
            own = [point for point in points if point[0] == name]
            look = looks[label]
            for panel, (at, _, _) in zip(panels, sides, strict=True):
                if label not in swept:
                    numbered = [point for point in own if point[1] is not None]
                    panel.plot(
                        [point[at] for point in numbered], [point[4] for point in numbered], color=look["color"],
                        linestyle=look["linestyle"], linewidth=look["linewidth"],
                    )  # fmt: skip
                for place, point in enumerate(own):
                    size = 16 + 14 * place if point[1] is not None else 22 if label in swept else 60
                    panel.scatter(
                        point[at], point[4], s=size, color=look["color"], marker=look["marker"] or "o", zorder=3,
                        edgecolors=INK if point[1] is None else "none", linewidths=0.9,
                    )  # fmt: skip
            if label not in labeled:
                labeled.add(label)
                line = "" if label in swept else look["linestyle"]
                panels[0].plot([], [], label=label, **{**look, "marker": look["marker"] or "o", "linestyle": line})
        for panel, (_, label, title) in zip(panels, sides, strict=True):
            panel.set(xlabel=label, title=title, xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
        panels[0].set(ylabel="concept no longer named (share)")
        legend_beside(figure, panels[0])
    return figure


def _points(rows: Rows) -> list[tuple[str, int | None, float, float, float]]:
    """(method, K, retention, unchanged without the concept, suppression), means over photos."""
    found, role = [], tested(rows)
    for (method, count), cell in cells(rows).items():
        held, without = where(cell, role=role), where(cell, role="without")
        gone, kept, same = mean(held, "suppressed"), mean(held, "retained"), mean(without, "unchanged")
        if gone and kept:
            found.append((method, count, kept.mean, same.mean if same else float("nan"), gone.mean))
    return found
