"""The summary of an editor's evaluation, in Markdown and as a page: every figure with protocol, number, interval."""

from __future__ import annotations

from pathlib import Path

from neuronwise.drawing import page as shell
from neuronwise.drawing.style import rendered
from neuronwise.drawing.tables import escaped, markdown
from neuronwise.errors import NeuronwiseError
from neuronwise.files import shareable, write_text
from neuronwise.study.evaluation.curve import curve_figures
from neuronwise.study.evaluation.results import Evaluation
from neuronwise.study.evaluation.tables import single


def write_summary(evaluation: Evaluation) -> Path:
    """Write ``summary.md`` and ``summary.html`` into the evaluation's folder; returns the Markdown's path."""
    if evaluation.folder is None:
        raise NeuronwiseError("This evaluation has no folder; give evaluate(..., out=DIR) one.")
    write_text(evaluation.folder / "summary.md", summary(evaluation))
    write_text(evaluation.folder / "summary.html", page(evaluation))
    return evaluation.folder / "summary.md"


def summary(evaluation: Evaluation) -> str:
    """The summary in Markdown."""
    parts = [f"# {_title(evaluation)}", *(escaped(line) for line in _lines(evaluation))]
    parts += [f"## {table.title}\n\n{markdown(table).strip()}" for table in single(evaluation)]
    return "\n\n".join(parts) + "\n"


def page(evaluation: Evaluation) -> str:
    """The summary as one HTML file that loads nothing, runs nothing, and escapes every string."""
    figures = curve_figures({evaluation.recipe["editor"]: evaluation})
    try:
        sections = [shell.figure_section(shell.Drawn(figure, *rendered(figure))) for figure in figures]
    except NeuronwiseError:  # there is no matplotlib; the table has the numbers
        sections = []
    sections += [shell.table_section(table) for table in single(evaluation)]
    return shell.page(_title(evaluation), _lines(evaluation), sections, evaluation.recipe, {})


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.recipe['editor']} on {shareable(evaluation.recipe['model'])}"


def _lines(evaluation: Evaluation) -> list[str]:
    recipe, rows = evaluation.recipe, evaluation.rows
    finished = len(rows) - len(evaluation.failed)
    kept = "One edit at a time, taken out again after it was measured."
    if recipe.get("every") is not None and recipe["sequential"] == 1:
        kept = f"All edits in a row, {recipe['batch']} facts in each; the figures are those after the last edit."
    elif recipe["sequential"] > 1 or recipe["batch"] > 1:
        kept = f"{recipe['sequential']} edits in a row of {recipe['batch']} facts each, kept at once while measured."
    chosen = ", ".join(f"{name}={value}" for name, value in (recipe["settings"] or recipe["changes"]).items())
    return [
        f"{finished} cases measured, {len(evaluation.failed)} failed, of {recipe['cases']} read"
        + (", those whose true answer the model gives by itself." if recipe["known"] else "."),
        kept,
        f"Settings given: {chosen or 'none'}. Seed {recipe['seed']}, weights in {recipe['dtype']}.",
        "Teacher-forced figures are shares of an answer's tokens that are argmax (locality: that are as before); in "
        "free generation the greedy text begins with the answer (locality: is the same text). Intervals are 95 % "
        "percentile bootstrap intervals of the mean over cases.",
    ]
