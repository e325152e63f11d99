"""Small pieces of HTML for notebooks: every string escaped, no script, nothing that is loaded."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

SHOWN = 10  # rows of a table
_CHIP = "padding:0 .35em;margin-right:.25em;border-radius:3px;background:rgba(128,128,128,.15);white-space:pre-wrap"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], count: int, note: str = "") -> str:
    """A titled table of at most ``SHOWN`` of ``count`` rows; cells are HTML that is escaped already."""
    head = "".join(f'<th style="text-align:left">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in row) + "</tr>"
        for row, _ in zip(rows, range(SHOWN), strict=False)
    )
    more = f"<p>… and {count - SHOWN} more</p>" if count > SHOWN else ""
    return f"{line(title, note)}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def line(title: str, note: str = "") -> str:
    """A title, and beside it what else is to be said."""
    beside = f' <span style="opacity:.7">{html.escape(note)}</span>' if note else ""
    return f"<p><b>{html.escape(title)}</b>{beside}</p>"


def text(value: object) -> str:
    """A cell: numbers with three digits, None as a dash."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else html.escape(str(value))


def chips(tokens: Iterable[str], most: int = 6) -> str:
    """Tokens, each in a box, so that their blanks are seen."""
    shown = (token.replace("\n", "↵") for token, _ in zip(tokens, range(most), strict=False))
    return "".join(f'<code style="{_CHIP}">{html.escape(token)}</code>' for token in shown)
