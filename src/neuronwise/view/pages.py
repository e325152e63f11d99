"""Pages of the viewer: a template with data in it, beside scripts and styles that it loads from the viewer alone."""

from __future__ import annotations

import functools
import hashlib
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

from neuronwise.drawing import page as drawn
from neuronwise.report.filled import asset as report_asset
from neuronwise.report.filled import filled_body
from neuronwise.report.page import SCRIPTS as FINDING

# Scripts that pages load. The files of one share one scope, joined in this order, as in the pages that are one file.
ASK = ("progress.js", "ask.js")
SCRIPTS: dict[str, Sequence[str]] = {
    "bar": ("tokens.js", "addresses.js", *ASK, "bar.js", "save.js"),
    "finding": FINDING,
    "circuit": ("circuit.js",),
    "home": ("tokens.js", "addresses.js", "kept.js", "home.js"),
    "neuron": (
        "tokens.js",
        "addresses.js",
        "heat.js",
        "kept.js",
        *ASK,
        "dropped.js",
        "labels.js",
        "answers.js",
        "neuron.js",
        "examples.js",
        "live.js",
    ),
    "load": ("load.js",),
    "index": ("tokens.js", "addresses.js", "kept.js", "labels.js", "index.js"),
    "find": ("tokens.js", "kept.js", *ASK, "dropped.js", "find.js"),
    "search": ("tokens.js", "addresses.js", "kept.js", *ASK, "dropped.js", "labels.js", "search.js"),
    "study": ("tokens.js", "kept.js", "study.js"),
    "edit": ("tokens.js", "addresses.js", *ASK, "edit.js"),
    "compare": ("tokens.js", "addresses.js", "kept.js", "compare.js"),
    "more": ("tokens.js", "addresses.js", *ASK, "more.js"),
}
STYLES: dict[str, Sequence[str]] = {
    "page": ("page.css", "answers.css", "view.css"),
    "circuit": ("circuit.css", "view.css"),
    "study": ("drawn.css", "page.css", "view.css"),
}
SLIDER = ("tokens.js", "progress.js", "answers.js", "slider.js")  # in notebooks


@dataclass(frozen=True)
class Page:
    """``template``: its HTML, NAME.html; ``data``: what fills its places, as JSON; ``scripts`` and ``style`` by name.

    ``markup`` fills other places with HTML, escaped already; ``here`` says what of the viewer the page shows.
    """

    template: str
    title: str
    scripts: Sequence[str]
    data: Mapping[str, object] = field(default_factory=dict)
    style: str = "page"
    markup: Mapping[str, str] = field(default_factory=dict)
    here: Mapping[str, object] = field(default_factory=dict)


def served(page: Page, bar: Mapping[str, object]) -> str:
    """The page as the viewer serves it; ``bar`` is what its bar says."""
    tag = fingerprint()
    scripts = "".join(
        f'<script type="module" src="/static/{tag}/{name}.js"></script>\n' for name in (*page.scripts, "bar")
    )
    parts = {
        "title": html.escape(page.title),
        "style": f"/static/{tag}/{page.style}.css",
        "bar": filled_body(asset("bar.html"), {}, {"bar": {**bar, **page.here}}),
        "body": filled_body(asset(f"{page.template}.html"), page.markup, page.data),
        "scripts": scripts,
    }
    return drawn.filled(asset("shell.html"), parts)


@functools.cache
def static(name: str) -> str | None:
    """A script or style that pages load, NAME.js or NAME.css; None for any other name."""
    stem, _, kind = name.rpartition(".")
    if kind == "js" and stem in SCRIPTS:
        return "".join(map(asset, SCRIPTS[stem]))
    if kind == "css" and stem in STYLES:
        return "".join(map(asset, STYLES[stem]))
    return None


@functools.cache
def fingerprint() -> str:
    """Of all scripts and styles: browsers keep them until they change."""
    whole = "".join(static(f"{name}.{kind}") or "" for kind, of in (("js", SCRIPTS), ("css", STYLES)) for name in of)
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


@functools.cache
def asset(name: str) -> str:
    """A template, script or style: the viewer's own, else one of the report's."""
    if name == "drawn.css":
        return resources.files("neuronwise.drawing").joinpath("page.css").read_text(encoding="utf-8")
    own = resources.files("neuronwise.view").joinpath("assets", name)
    return own.read_text(encoding="utf-8") if own.is_file() else report_asset(name)
