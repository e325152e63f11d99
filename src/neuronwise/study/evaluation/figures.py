"""The figure of an evaluation of several editors: what each changes, and what it leaves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from neuronwise.drawing.style import Figure, plotting, styles
from neuronwise.study.evaluation.results import evaluations
from neuronwise.study.evaluation.tables import Editors, compared
from neuronwise.study.kind import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SHOWN = ("success_forced", "generality_forced", "locality_neighborhood_forced", "others_unchanged_forced")


def figures(study: Study) -> list[Figure]:
    """None for a single editor, whose figures are one table."""
    found = evaluations(study)
    if len(found) == 1:
        return []
    return [
        Figure(
            "editors",
            "Editors side by side",
            "One panel a figure, one line an editor: its mean over cases with the interval. The numbers are in the "
            "table.",
            partial(_draw, found),
            "Means over cases; bars are 95 % bootstrap intervals. To the right is better.",
        )
    ]


def _draw(found: Editors) -> Drawing:
    looks = styles(list(found))
    columns = {name: label for name, label in compared(found).items() if name in SHOWN}
    with plotting() as pyplot:
        figure, panels = pyplot.subplots(
            1, len(columns) or 1, figsize=(9.4, 0.3 * len(found) + 1.2), sharey=True, squeeze=False
        )
        for panel, (name, label) in zip(panels[0], columns.items(), strict=False):
            for place, (editor, one) in enumerate(found.items()):
                mean = one.means().get(name)
                if mean is not None:
                    color = looks[editor]["color"]
                    panel.plot([mean.low, mean.high], [place, place], color=color)
                    panel.plot([mean.mean], [place], color=color, marker=looks[editor]["marker"] or "o")
            panel.set(title=label, xlim=(-0.04, 1.04))
        panels[0, 0].set_yticks(range(len(found)), list(found))
        panels[0, 0].invert_yaxis()
    return figure
