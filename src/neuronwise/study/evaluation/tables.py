"""Tables of an evaluation: all figures of one editor, or several editors side by side."""

from __future__ import annotations

from collections.abc import Mapping

from neuronwise.answers.protocols.table import PROTOCOLS
from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.bootstrap import Mean
from neuronwise.study.evaluation.curve import curve_tables
from neuronwise.study.evaluation.figure_names import described, ordered
from neuronwise.study.evaluation.results import Evaluation, alike, differences, evaluations
from neuronwise.study.kind import Study

COLUMNS = ("Figure", "Protocol", "Cases", "Before", "After", "95 % interval")
COSTS = {
    "seconds": ("Seconds an edit", 1.0, 2),
    "cpu_seconds": ("CPU seconds an edit", 1.0, 2),
    "measuring_seconds": ("Seconds to measure it", 1.0, 2),
    "peak_memory": ("Peak memory beyond the start, MB", 1e-6, 1),
    "parameters_changed": ("Weights changed", 1.0, 0),
}
COMPARED = {
    "success_forced": "success, forced",
    "success_free": "success, free",
    "success_text_forced": "asked by text, forced",
    "success_text_free": "asked by text, free",
    "success_image_forced": "asked by photo, forced",
    "success_image_free": "asked by photo, free",
    "generality_forced": "paraphrases, forced",
    "generality_free": "paraphrases, free",
    "portability_forced": "portability",
    "portability_first_forced": "portability, first answer",
    "locality_relation_specificity_forced": "same subject, other relation",
    "locality_neighborhood_forced": "other subjects",
    "others_unchanged_forced": "other facts",
    "overediting_forced": "over-editing",
    "unchanging_forced": "unchanging",
    "fluency": "fluency",
    "fluency_released": "fluency, as released",
}
QUALITY = ("success_forced", "generality_forced", "locality_forced", "others_unchanged_forced")
Editors = Mapping[str, Evaluation]


def tables(study: Study) -> list[Table]:
    """All figures of a single editor; of several the main ones, their differences from the first, and the costs."""
    found = begun(study)
    if len(study.recipe.get("editors", ())) < 2:
        return [table for one in found.values() for table in single(one)]
    if not found:
        return []
    same = alike(found)
    found_tables = (
        _compared(found, same), *curve_tables(found), _differences(same), _costs(same), _settings(found)
    )  # fmt: skip
    return [table for table in found_tables if table.rows]


def begun(study: Study) -> dict[str, Evaluation]:
    """The editors of which a case is measured, by their names."""
    return {name: one for name, one in evaluations(study).items() if one.rows}


def single(evaluation: Evaluation) -> list[Table]:
    """Figures, costs and failed cases of one editor."""
    spent = evaluation.means("cost")
    costs = [
        (label, str(spent[name].n), str(Estimate(spent[name].mean * scale, digits=digits)))
        for name, (label, scale, digits) in COSTS.items()
        if name in spent
    ]
    failed = [(str(row["id"]), row["prompt"], str(row["reason"])) for row in evaluation.failed]
    found = [
        Table("figures", "Figures", COLUMNS, figure_rows(evaluation)),
        *curve_tables({evaluation.recipe["editor"]: evaluation}),
        Table("cost", "Cost", ("Cost", "Cases", "Mean"), costs),
        Table("failed", "Failed cases", ("Case", "Prompt", "Reason"), failed),
    ]
    return found if failed else found[:-1]


def figure_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """One row of ``COLUMNS`` for each figure."""
    after, before = evaluation.means(), evaluation.means("before")
    rows = []
    for name in ordered(list(after)):
        what, protocol = described(name)
        first = rounded(before[name].mean) if name in before else "–"
        mean = after[name]
        between = f"{rounded(mean.low)} to {rounded(mean.high)}"
        rows.append((what, protocol, str(mean.n), first, rounded(mean.mean), between))
    return rows


def rounded(value: float) -> str:
    """Three digits behind the point; a perplexity without measure in short."""
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.2g}"


def quality(means: Mapping[str, Mean]) -> float:
    """Harmonic mean of success, paraphrases, locality and other facts unchanged: what an editor must have at once."""
    values = [means[name].mean if name in means else 0.0 for name in QUALITY]
    return 0.0 if min(values) <= 0 else len(values) / sum(1 / value for value in values)


def compared(found: Editors) -> dict[str, str]:
    """The figures that editors are compared by, as far as any editor has them."""
    there = {name for one in found.values() for name in one.means()}
    freely = {
        f"{part}_{name}": f"{label}, {name}"
        for name in PROTOCOLS
        for part, label in (("success", "success"), ("generality", "paraphrases"), ("portability", "portability"),
                            ("locality", "locality"))
    }  # fmt: skip
    return {name: label for name, label in {**COMPARED, **freely}.items() if name in there}


def _compared(found: Editors, same: Editors) -> Table:
    columns = compared(same)
    body: list[list[Cell]] = []
    for name, one in same.items():
        means = one.means()
        cells = [Estimate.of(means.get(figure)) for figure in columns]
        whole = Estimate(quality(means)) if set(QUALITY) <= set(means) else None
        body.append([name, len(one.rows), len(found[name].failed), *cells, whole])
    return Table(
        "editors",
        "Editors side by side",
        ("editor", "cases", "failed", *columns.values(), "all at once"),
        body,
        "Means over the cases that every editor measured, with 95 % bootstrap intervals; failed: cases that an editor "
        "could not edit or measure, which count for none; locality: the share of argmax tokens that are as before. All "
        "at once: the harmonic mean of success, paraphrases, locality (mean of kinds) and other facts, teacher-forced.",
    )


def _differences(found: Editors) -> Table:
    columns = compared(found)
    (first, base), *others = found.items()
    return Table(
        "differences",
        f"Differences from {first}",
        ("editor", *columns.values()),
        [[name, *(Estimate.of(differences(one, base, figure)) for figure in columns)] for name, one in others],
        f"Each editor minus {first}, paired over the cases that both measured, with 95 % bootstrap intervals.",
    )


def _costs(found: Editors) -> Table:
    body: list[list[Cell]] = []
    for name, one in found.items():
        spent = one.means("cost")
        body.append([name, *(
            Estimate(spent[cost].mean * scale, digits=min(digits, 1)) if cost in spent else None
            for cost, (_, scale, digits) in COSTS.items()
        )])  # fmt: skip
    return Table("costs", "Costs", ("editor", *(label for label, _, _ in COSTS.values())), body, "Means over cases.")


def _settings(found: Editors) -> Table:
    body: list[list[Cell]] = []
    for name, one in found.items():
        given = one.recipe["settings"] or one.recipe["changes"]
        body.append([name, one.recipe["editor"], ", ".join(f"{key}={value}" for key, value in given.items()) or "–"])
    return Table("settings", "Settings", ("name", "editor", "settings given"), body, "All others are the preset's.")
