"""The figure of an evaluation of several editors: what each changes, and what it leaves."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING

from neuronwise.drawing.style import Figure, plotting, styles
from neuronwise.study.evaluation.curve import curve_figures
from neuronwise.study.evaluation.results import alike
from neuronwise.study.evaluation.tables import Editors, begun, compared
from neuronwise.study.kind import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

SHOWN = (
    "success_forced", "success_text_forced", "success_image_forced", "generality_forced",
    "locality_neighborhood_forced", "others_unchanged_forced",
)  # fmt: skip


def figures(study: Study) -> list[Figure]:
    """What editors do side by side, and edits in a row; a single editor's figures are one table."""
    every = begun(study)
    found = alike(every)
    if len(study.recipe.get("editors", ())) < 2 or not found:
        return curve_figures(every)
    return [
        Figure(
            "editors",
            "Editors side by side",
            "One panel a figure, one line an editor: its mean over cases with the interval. The numbers are in the "
            "table.",
            partial(_draw, found),
            "Means over the cases that every editor measured; bars are 95 % bootstrap intervals. Right is better.",
        ),
        *curve_figures(every),
    ]


def _draw(found: Editors) -> Drawing:
    looks = styles(list(found))
    columns = {name: label for name, label in compared(found).items() if name in SHOWN}
    with plotting() as pyplot:
        figure, panels = pyplot.subplots(
            1,
            len(columns) or 1,
            figsize=(0.07 * max(map(len, found)) + 1.7 * len(columns), 0.3 * len(found) + 1.4),
            sharey=True,
            squeeze=False,
        )
        for panel, (name, label) in zip(panels[0], columns.items(), strict=False):
            for place, (editor, one) in enumerate(found.items()):
                mean = one.means().get(name)
                if mean is not None:
                    color = looks[editor]["color"]
                    panel.plot([mean.low, mean.high], [place, place], color=color)
                    panel.plot([mean.mean], [place], color=color, marker=looks[editor]["marker"] or "o")
            panel.set(title=textwrap.fill(label, 15), xlim=(-0.06, 1.06))
        panels[0, 0].set_yticks(range(len(found)), list(found))
        panels[0, 0].invert_yaxis()
    return figure
