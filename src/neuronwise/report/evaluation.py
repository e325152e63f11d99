"""The summary of an evaluation, in Markdown and as a page of its own: every figure with protocol, number, interval."""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path

from neuronwise.errors import NeuronwiseError
from neuronwise.files import write_text
from neuronwise.measure import Mean
from neuronwise.report.figures import described, ordered
from neuronwise.study import Evaluation

COLUMNS = ("Figure", "Protocol", "Cases", "Before", "After", "95 % interval")
COSTS = {
    "seconds": ("Seconds an edit", 1.0, "{:.2f}"),
    "cpu_seconds": ("CPU seconds an edit", 1.0, "{:.2f}"),
    "measuring_seconds": ("Seconds to measure it", 1.0, "{:.2f}"),
    "peak_memory": ("Peak memory beyond the start, MB", 1e-6, "{:.1f}"),
    "parameters_changed": ("Weights changed", 1.0, "{:.0f}"),
}
STYLE = """
body { margin: 2rem auto; max-width: 70rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #1f1d1a;
  background: #fcfbf9; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0 2rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #e4e0d8; vertical-align: top; }
th { font-weight: 600; } td { white-space: pre-wrap; }
@media (prefers-color-scheme: dark) { body { color: #ece8e1; background: #171614; } th, td { border-color: #35322d; } }
"""

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # title, columns, rows


def write_summary(evaluation: Evaluation) -> Path:
    """Write ``summary.md`` and ``summary.html`` into the evaluation's folder; returns the Markdown's path."""
    if evaluation.folder is None:
        raise NeuronwiseError("This evaluation has no folder; give evaluate(..., out=DIR) one.")
    for name, text in (("summary.md", markdown(evaluation)), ("summary.html", page(evaluation))):
        write_text(evaluation.folder / name, text)
    return evaluation.folder / "summary.md"


def figure_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """One row of ``COLUMNS`` for each figure."""
    after, before = evaluation.means(), evaluation.means("before")
    rows = []
    for name in ordered(list(after)):
        what, protocol = described(name)
        first = f"{before[name].mean:.3f}" if name in before else "–"
        rows.append((what, protocol, str(after[name].n), first, f"{after[name].mean:.3f}", _interval(after[name])))
    return rows


def markdown(evaluation: Evaluation) -> str:
    """The summary in Markdown."""
    parts = [f"# {_title(evaluation)}", "\n\n".join(_markdown_text(line) for line in _lines(evaluation))]
    for title, columns, rows in _tables(evaluation):
        lines = [columns, ("---",) * len(columns), *rows]
        table = "\n".join("| " + " | ".join(_markdown_text(cell) for cell in line) + " |" for line in lines)
        parts.append(f"## {title}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def page(evaluation: Evaluation) -> str:
    """The summary as one HTML file that loads nothing, runs nothing, and escapes every string."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    title = html.escape(_title(evaluation))
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{digest}'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>",
        *(f"<p>{html.escape(line)}</p>" for line in _lines(evaluation)),
    ]
    for heading, columns, rows in _tables(evaluation):
        head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(
            f"<h2>{html.escape(heading)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    return "\n".join([*parts, "</body></html>\n"])


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.recipe['editor']} on {evaluation.recipe['model']}"


def _lines(evaluation: Evaluation) -> list[str]:
    recipe, rows = evaluation.recipe, evaluation.rows
    finished = len(rows) - len(evaluation.failed)
    kept = "One edit at a time, taken out again after it was measured."
    if recipe["sequential"] > 1 or recipe["batch"] > 1:
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


def _tables(evaluation: Evaluation) -> list[Table]:
    tables: list[Table] = [("Figures", COLUMNS, figure_rows(evaluation))]
    spent = evaluation.means("cost")
    rows = [
        (label, str(spent[name].n), form.format(spent[name].mean * scale))
        for name, (label, scale, form) in COSTS.items()
        if name in spent
    ]
    tables.append(("Cost", ("Cost", "Cases", "Mean"), rows))
    if evaluation.failed:
        reasons = [(str(row["id"]), row["prompt"], str(row["reason"])) for row in evaluation.failed]
        tables.append(("Failed cases", ("Case", "Prompt", "Reason"), reasons))
    return tables


def _interval(mean: Mean) -> str:
    return f"{mean.low:.3f} to {mean.high:.3f}"


def _markdown_text(text: str) -> str:
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return " ".join(text.split())
