"""Pages of studies and evaluations: tables that sort, figures, single cases."""

from __future__ import annotations

import html
import math
import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from neuronwise.errors import NeuronwiseError, StudyError, told
from neuronwise.view.folders import Item
from neuronwise.view.pages import Page

if TYPE_CHECKING:
    from neuronwise.study.kind import Kind, Study

CASES = 2000  # that a page lists
LONGEST = 4000  # characters of a value in a case
_DRAWING = threading.Lock()  # matplotlib draws one figure at a time
_figures: dict[tuple[str, float], dict[str, bytes]] = {}


def study_page(item: Item) -> Page:
    """The tables, figures and cases of a study, finished or not; raises ``StudyError`` for a damaged one."""
    from neuronwise.drawing.page import list_section, table_section
    from neuronwise.report.study import about, title

    study, kind = _read(item)
    with _telling(item):
        tables = kind.tables(study) if study.cases > len(study.failed) else []
        figures = kind.figures(study) if tables else []
        name, lines = title(study, kind), about(study, kind)
    sections = [table_section(table) for table in tables]
    drawn = "".join(
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="Figure: {html.escape(one.title)}">'
        f'<img loading="lazy" src="/figure/{_quoted(item.id)}?name={_quoted(one.name)}" '
        f'alt="{html.escape(one.alt)}"></div>'
        f"<figcaption>{html.escape(one.note)}</figcaption></figure>"
        for one in figures
    )
    left = {"Failed cases": study.failed, "Left out": study.skipped}
    sections += [list_section(heading, found) for heading, found in left.items() if found]
    markup = {
        "title": html.escape(name),
        "about": "".join(f"<p>{html.escape(line)}</p>" for line in lines),
        "figures": f"<section><h2>Figures</h2>{drawn}</section>" if drawn else "",
        "tables": "".join(f"<section><h2>{html.escape(one.heading)}</h2>{one.content}</section>" for one in sections),
    }
    data = {"study": {"cases": [_short(line) for line in study.lines[:CASES]], "count": study.cases}}
    return Page("study", f"{name} · neuronwise", ("study",), data, "study", markup)


def figure(item: Item, name: str) -> bytes:
    """One figure of a study as SVG, drawn when it is asked for; raises ``NeuronwiseError`` for one that it has not."""
    from neuronwise.drawing.style import rendered

    key = (item.id, max(path.stat().st_mtime for path in item.path.iterdir() if path.is_file()))
    with _DRAWING:
        if key not in _figures:
            study, kind = _read(item)
            if len(_figures) > 8:
                _figures.clear()
            with _telling(item):
                _figures[key] = {one.name: rendered(one)[0] for one in kind.figures(study)}
    if name not in _figures[key]:
        raise NeuronwiseError(f"This study has no figure {name!r}.")
    return _figures[key][name]


def _telling(item: Item) -> AbstractContextManager[None]:
    return told(StudyError, f"'{item.id}' cannot be shown; its rows may be damaged")


def _read(item: Item) -> tuple[Study, Kind[Any]]:
    try:
        from neuronwise.study import KINDS, read_study
    except ImportError as error:
        raise StudyError("Studies need more packages: pip install 'neuronwise[study]'.") from error
    study = read_study(item.path)
    if study.kind not in KINDS:
        raise StudyError(f"There is no page for studies of the kind {study.kind!r}; it has {', '.join(KINDS)}.")
    return study, KINDS[study.kind]


def _short(value: Any) -> Any:
    """A case as it was written, long texts cut."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[:LONGEST]} …"
    if isinstance(value, dict):
        return {str(name): _short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_short(one) for one in value[:200]]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _quoted(text: str) -> str:
    return html.escape(quote(text))
