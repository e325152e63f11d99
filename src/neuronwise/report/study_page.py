"""A study's page: one HTML file with its figures inside, which loads nothing and escapes every string."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from neuronwise.drawing.style import Figure
from neuronwise.drawing.tables import Table, html_table
from neuronwise.study.results import Study

TITLES = {
    "suppression": "Suppressing concepts in captions",
    "properties": "Properties of a word's neurons",
    "localization": "Deletion and insertion",
}


@dataclass(frozen=True)
class Drawn:
    """A figure as it was rendered."""

    figure: Figure
    svg: bytes
    png: bytes


def page(study: Study, tables: Sequence[Table], drawn: Sequence[Drawn]) -> str:
    """The whole page."""
    style = _file("study.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    figures = [(f"figure-{one.figure.name}", one.figure.title, _figure(one)) for one in drawn]
    shown = [(f"table-{table.name}", table.title, _table(table)) for table in tables]
    listed = "".join(
        f'<li><a href="#{html.escape(name)}">{html.escape(heading)}</a></li>' for name, heading, _ in figures + shown
    )
    parts = {
        "policy": f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'",
        "title": html.escape(title(study)),
        "style": style,
        "about": "".join(f"<p>{html.escape(line)}</p>" for line in about(study)),
        "contents": listed,
        "figures": "".join(_section(*one) for one in figures),
        "tables": "".join(_section(*one) for one in shown),
        "left": _left_out(study),
        "recipe": html.escape(_plain(study.recipe)),
        "versions": html.escape(", ".join(f"{k} {v}" for k, v in study.manifest.get("versions", {}).items())),
    }
    # One pass: a placeholder's name inside a caption is never filled in.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _file("study.html"))


def title(study: Study) -> str:
    return str(study.recipe.get("title") or TITLES.get(study.kind, study.kind))


def about(study: Study) -> list[str]:
    """What a reader must know before any number."""
    recipe = study.recipe
    of = f" of {study.total}" if study.total is not None and not study.finished else ""
    failed = f", {len(study.failed)} of them failed" if study.failed else ""
    data = study.manifest.get("data", {})
    state = f"{study.cases}{of} cases{failed}."
    if not study.finished:
        state += " The study is not finished: everything below is about the cases so far."
    return [
        f"{state} Model {recipe['model']} in {recipe.get('weights_dtype') or recipe.get('dtype')}, seed "
        f"{recipe['seed']}; {data.get('photos', '?')} photos.",
        "One model and these photos: what is shown here need not hold for others. Intervals are 95 % percentile "
        "bootstrap intervals; they tell how much chance there is in the choice of cases, not in that of the model.",
    ]


def _section(name: str, heading: str, content: str) -> str:
    return f'<section id="{html.escape(name)}"><h2>{html.escape(heading)}</h2>{content}</section>'


def _figure(one: Drawn) -> str:
    source = f"data:image/svg+xml;base64,{base64.b64encode(one.svg).decode()}"
    return (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="{html.escape(one.figure.title)}">'
        f'<img src="{source}" alt="{html.escape(one.figure.alt)}"></div>'
        f"<figcaption>{html.escape(one.figure.note)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return note + html_table(table)


def _left_out(study: Study) -> str:
    parts = []
    for heading, found in (("Failed cases", study.failed), ("Left out", study.skipped)):
        if found:
            rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(why)}</dd>" for name, why in found.items())
            parts.append(f"<section><h2>{heading}</h2><dl>{rows}</dl></section>")
    return "".join(parts)


def _plain(recipe: Mapping[str, Any], depth: int = 0) -> str:
    """The recipe as lines that a person reads."""
    lines = []
    for name, value in recipe.items():
        if value is None or value in ("", {}, []):
            continue
        lines.append(f"{'  ' * depth}{name}: {_short(value)}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        kept = {key: one for key, one in value.items() if one not in (None, "", {}, []) and one != "mean"}
        if set(kept) == {"method"}:
            return str(kept["method"])
        return "{" + ", ".join(f"{key}: {_short(one)}" for key, one in kept.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return str(value)


def _file(name: str) -> str:
    return resources.files("neuronwise.report").joinpath(name).read_text(encoding="utf-8")
