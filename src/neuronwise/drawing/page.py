"""The shell of a page: one HTML file with its figures inside, which loads nothing and escapes every string."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from neuronwise.drawing.style import Figure
from neuronwise.drawing.tables import Table, html_table
from neuronwise.files import shareable


@dataclass(frozen=True)
class Drawn:
    """A figure as it was rendered."""

    figure: Figure
    svg: bytes
    png: bytes


@dataclass(frozen=True)
class Section:
    """A heading with its content in HTML, every string escaped; ``name``: its anchor, without which it has none."""

    heading: str
    content: str
    name: str = ""


def page(
    title: str,
    about: Sequence[str],
    sections: Sequence[Section],
    recipe: Mapping[str, object],
    versions: Mapping[str, str],
) -> str:
    """The whole page. ``about``: what a reader must know before any number; ``recipe``: how it was made."""
    listed = "".join(
        f'<li><a href="#{html.escape(one.name)}">{html.escape(one.heading)}</a></li>' for one in sections if one.name
    )
    parts = {
        "title": html.escape(title),
        "about": "".join(f"<p>{html.escape(line)}</p>" for line in about),
        "contents": listed,
        "sections": "".join(map(_section, sections)),
        "recipe": html.escape(_plain(recipe)),
        "versions": html.escape(", ".join(f"{name} {version}" for name, version in versions.items())),
    }
    return shell(f"{title} · neuronwise", filled(_file("page.html"), parts), _file("page.css"))


def shell(title: str, body: str, style: str, script: str = "") -> str:
    """A page around ``body``, HTML that is escaped already.

    Only this very script and style run; nothing is loaded but the images inside the file, nothing is sent.
    """
    code, look = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style))
    scripts = f"script-src 'sha256-{code}'; " if script else ""
    parts = {
        "policy": f"default-src 'none'; {scripts}style-src 'sha256-{look}'; img-src data:; base-uri 'none'; "
        "form-action 'none'",
        "title": html.escape(title),
        "style": style,
        "body": body,
        "script": f'<script type="module">{script}</script>\n' if script else "",
    }
    return filled(_file("shell.html"), parts)


def filled(template: str, parts: Mapping[str, str]) -> str:
    """``parts`` in their {{places}}, in one pass: a placeholder's name inside a caption is never filled in."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def figure_section(one: Drawn) -> Section:
    """A figure, as an image inside the page."""
    source = f"data:image/svg+xml;base64,{base64.b64encode(one.svg).decode()}"
    content = (
        f'<figure><div class="wide" tabindex="0" role="region" aria-label="Figure: {html.escape(one.figure.title)}">'
        f'<img src="{source}" alt="{html.escape(one.figure.alt)}"></div>'
        f"<figcaption>{html.escape(one.figure.note)}</figcaption></figure>"
    )
    return Section(one.figure.title, content, f"figure-{one.figure.name}")


def table_section(table: Table) -> Section:
    """A table below its note."""
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return Section(table.title, note + html_table(table), f"table-{table.name}")


def list_section(heading: str, found: Mapping[str, str]) -> Section:
    """Names, each with a sentence about it."""
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(why)}</dd>" for name, why in found.items())
    return Section(heading, f"<dl>{rows}</dl>")


def _section(one: Section) -> str:
    anchor = f' id="{html.escape(one.name)}"' if one.name else ""
    return f"<section{anchor}><h2>{html.escape(one.heading)}</h2>{one.content}</section>"


def _plain(recipe: Mapping[str, object]) -> str:
    """The recipe as lines that a person reads."""
    return "\n".join(
        f"{name}: {_short(value)}" for name, value in shareable(recipe).items() if value not in (None, "", {}, [])
    )


def _short(value: object) -> str:
    if isinstance(value, Mapping):
        kept = {key: one for key, one in value.items() if one not in (None, "", {}, []) and one != "mean"}
        if set(kept) == {"method"}:
            return str(kept["method"])
        return "{" + ", ".join(f"{key}: {_short(one)}" for key, one in kept.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return str(value)


def _file(name: str) -> str:
    return resources.files("neuronwise.drawing").joinpath(name).read_text(encoding="utf-8")
