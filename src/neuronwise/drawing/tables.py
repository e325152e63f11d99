"""Tables of a study, once built, as Markdown, CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Interval(Protocol):
    """A mean over ``n`` cases with the ends of its interval."""

    @property
    def mean(self) -> float:
        """The estimate."""
        ...

    @property
    def low(self) -> float:
        """The lower end."""
        ...

    @property
    def high(self) -> float:
        """The upper end."""
        ...

    @property
    def n(self) -> int:
        """The number of cases."""
        ...


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its interval and how many cases it is over, as a table's cell."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    digits: int = 2

    @classmethod
    def of(cls, found: Interval | None, digits: int = 2) -> Estimate | None:
        """The estimate of an interval, None for None."""
        return None if found is None else cls(found.mean, found.low, found.high, found.n, digits)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return _number(self.mean, self.digits)
        return (
            f"{_number(self.mean, self.digits)} [{_number(self.low, self.digits)}, {_number(self.high, self.digits)}]"
        )


Cell = str | int | Estimate | None


@dataclass(frozen=True)
class Table:
    """``name``: of its files; ``columns``: headings; ``rows``: cells in their order; ``note``: how to read it."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def markdown(table: Table) -> str:
    """A table as Markdown."""
    lines = [table.columns, ["---"] + ["---:"] * (len(table.columns) - 1)]
    head = ["| " + " | ".join(escaped(cell) for cell in lines[0]) + " |", "| " + " | ".join(lines[1]) + " |"]
    body = ["| " + " | ".join(escaped(_text(cell)) for cell in row) + " |" for row in table.rows]
    note = [f"{escaped(table.note)}", ""] if table.note else []
    return "\n".join([*note, *head, *body]) + "\n"


def csv_text(table: Table) -> str:
    """One line a row; an estimate takes four columns: mean, low, high, n."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    wide = [any(isinstance(row[at], Estimate) for row in table.rows) for at in range(len(table.columns))]
    head: list[str] = []
    for column, is_wide in zip(table.columns, wide, strict=True):
        head += [column, f"{column} (low)", f"{column} (high)", f"{column} (n)"] if is_wide else [column]
    writer.writerow([_plain(name) for name in head])
    for row in table.rows:
        cells: list[object] = []
        for cell, is_wide in zip(row, wide, strict=True):
            if isinstance(cell, Estimate):
                cells += [cell.mean, cell.low, cell.high, cell.n]
            else:
                cells += [_plain(cell) if isinstance(cell, str) else cell, None, None, None] if is_wide else [
                    _plain(cell) if isinstance(cell, str) else cell
                ]  # fmt: skip
        writer.writerow(["" if cell is None else cell for cell in cells])
    return stream.getvalue()


def latex(table: Table) -> str:
    """A booktabs table; the document needs \\usepackage{booktabs}."""
    form = "l" + "r" * (len(table.columns) - 1)
    rows = [" & ".join(_latex(_text(cell)) for cell in row) + r" \\" for row in table.rows]
    caption = _latex(f"{table.title}. {table.note}".strip())
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{form}}}",
            r"\toprule",
            " & ".join(_latex(column) for column in table.columns) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def html_table(table: Table) -> str:
    """The table as HTML, every string escaped; the first column heads its rows."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in table.columns)
    body = []
    for row in table.rows:
        first, *others = row
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in others)
        body.append(f'<tr><th scope="row">{html.escape(_text(first))}</th>{cells}</tr>')
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{html.escape(table.title)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, Estimate) and cell.low is not None:
        mean, interval = str(cell).split(" ", 1)
        count = f' title="{cell.n} cases"' if cell.n is not None else ""
        return f"<span{count}>{html.escape(mean)}</span> <small>{html.escape(interval)}</small>"
    return html.escape(_text(cell))


def _number(value: float, digits: int) -> str:
    text = f"{value:,.{digits}f}"
    return text[1:] if text.startswith("-") and not float(text) else text.replace("-", "−")


def _text(cell: Cell) -> str:
    return "–" if cell is None else str(cell)


def escaped(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, {"<": "&lt;", ">": "&gt;"}.get(mark, f"\\{mark}"))
    return " ".join(text.split())


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "−": r"$-$", "–": "--", "κ": r"$\kappa$", "σ": r"$\sigma$", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$",
    "|": r"\textbar{}", "\"": "''",
}  # fmt: skip


def _latex(text: str) -> str:
    return " ".join("".join(_LATEX.get(mark, mark) for mark in text).split())


def _plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula, on one line."""
    text = " ".join(text.split())
    return f"'{text}" if text[:1] in ("=", "+", "@", "-") else text
