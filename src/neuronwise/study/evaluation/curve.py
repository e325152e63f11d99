"""Edits in a row, measured on the way: how many of the earlier facts hold, and what has become of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from neuronwise.drawing.style import Figure, legend_beside, plain_log, plotting, styles
from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.bootstrap import Mean
from neuronwise.study.evaluation.results import Evaluation, alike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

EARLIER, NEWEST = "earlier", "newest"
COLUMNS = {
    "earlier/success_forced": "earlier facts, forced",
    "earlier/success_free": "earlier facts, free",
    "newest/success_forced": "newest facts, forced",
    "generality_forced": "paraphrases, forced",
    "locality_forced": "locality, mean of kinds",
    "others_unchanged_forced": "other facts",
    "perplexity": "perplexity",
}
PANELS = ("earlier/success_forced", "newest/success_forced", "generality_forced", "locality_forced", "perplexity")
Curves = Mapping[str, Mapping[int, Mapping[str, Mean]]]
"""Editor → number of edits in the model → figure → its mean."""


def means_by_edits(found: Mapping[str, Evaluation]) -> Curves:
    """The means after each stop, over the cases that every editor measured there."""
    after = {name: one.after() for name, one in found.items()}
    curves: dict[str, dict[int, Mapping[str, Mean]]] = {name: {} for name in found}
    for number in sorted({number for stops in after.values() for number in stops}):
        same = alike({name: stops[number] for name, stops in after.items() if number in stops})
        for name, one in same.items():
            if one.rows:
                curves[name][number] = _means(one)
    return curves


def _means(one: Evaluation) -> dict[str, Mean]:
    """All figures; those of the facts of earlier edits and of the newest one apart, too."""
    found = one.means()
    for which, newest in ((EARLIER, False), (NEWEST, True)):
        rows = [row for row in one.rows if (row["edit"] == row["edits"]) is newest]
        found |= {f"{which}/{name}": mean for name, mean in replace(one, rows=rows).means().items()}
    return found


def curve_tables(found: Mapping[str, Evaluation]) -> list[Table]:
    """One row for each editor and stop; no table where nothing was measured on the way."""
    measured = means_by_edits(found)
    there = {figure for stops in measured.values() for means in stops.values() for figure in means}
    columns = {name: label for name, label in COLUMNS.items() if name in there}
    body: list[list[Cell]] = [
        [editor, number, *(_cell(figure, means.get(figure)) for figure in columns)]
        for editor, stops in measured.items()
        for number, means in stops.items()
    ]
    if not body:
        return []
    note = (
        "Measured after so many edits, all of them in the model. Earlier facts: success of those that were edited "
        "before the newest edit; newest: of those of that edit. Locality and other facts: the share of answers that "
        "are as before any edit. Perplexity: of a neutral text. Means over the cases that every editor measured, with "
        "95 % bootstrap intervals."
    )
    return [Table("curve", "Edits one after another", ("editor", "edits", *columns.values()), body, note)]


def _cell(figure: str, mean: Mean | None) -> Cell:
    """A perplexity is the same for all cases of a stop, and without an upper end."""
    return f"{mean.mean:.4g}" if figure == "perplexity" and mean is not None else Estimate.of(mean)


def curve_figures(found: Mapping[str, Evaluation]) -> list[Figure]:
    """The table's main columns over the number of edits."""
    measured = means_by_edits(found)
    if sum(len(stops) for stops in measured.values()) < 2:
        return []
    return [
        Figure(
            "curve",
            "Edits one after another",
            "One panel a figure, one line an editor, over the edits in the model. The numbers are in the table.",
            partial(_draw, measured),
            "Lines are means over the facts edited so far, bands 95 % bootstrap intervals. Earlier facts are those of "
            "all edits but the newest.",
        )
    ]


def _draw(measured: Curves) -> Drawing:
    looks = styles(list(measured))
    there = {figure for stops in measured.values() for means in stops.values() for figure in means}
    columns = [name for name in PANELS if name in there]
    with plotting() as pyplot:
        figure, panels = pyplot.subplots(1, len(columns), figsize=(2.3 * len(columns), 2.6), squeeze=False)
        for panel, name in zip(panels[0], columns, strict=True):
            for editor, stops in measured.items():
                points = [(number, means[name]) for number, means in stops.items() if name in means]
                numbers = [number for number, _ in points]
                panel.plot(numbers, [mean.mean for _, mean in points], label=editor, **looks[editor])
                low, high = [mean.low for _, mean in points], [mean.high for _, mean in points]
                panel.fill_between(numbers, low, high, color=looks[editor]["color"], alpha=0.15, linewidth=0)
            _axes(panel, name, sorted({number for stops in measured.values() for number in stops}))
        legend_beside(figure, panels[0, 0])
    return figure


def _axes(panel: Axes, name: str, numbers: list[int]) -> None:
    panel.set(title=COLUMNS[name].partition(",")[0], xlabel="edits")
    if numbers[-1] >= 20 * numbers[0]:
        panel.set_xscale("log")
    plain_log(panel.xaxis, numbers)
    low, high = panel.get_ylim()
    if name == "perplexity" and low > 0 and high > 3 * low:
        panel.set_yscale("log")
        plain_log(panel.yaxis, [float(f"{low * (high / low) ** (part / 4):.2g}") for part in range(5)])
    elif name != "perplexity":
        panel.set_ylim(-0.04, 1.04)
