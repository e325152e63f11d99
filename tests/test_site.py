"""The documentation site: it builds without a warning, loads nothing from other hosts, and leaves no name out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer

import neuronwise as nw
from neuronwise.cli import app
from neuronwise.locate import Method
from scripts import ROOT, scripts_of

ELSEWHERE = re.compile(r"^(?:[a-z][a-z+.-]*:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; links, anchors, cross-references and the navigation are checked by building it strictly."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


class Page(HTMLParser):
    """What a page loads, and the anchors that it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A link that is followed by hand (an ``a``) loads nothing."""
        given = {name: value or "" for name, value in attrs}
        self.anchors.add(given.get("id", ""))
        self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]
        if tag == "link":
            self.loaded.append(given.get("href", ""))


def pages_of(site: Path) -> Iterator[Page]:
    for file in site.rglob("*.html"):
        yield Page(file.read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    loaded = {link for page in pages_of(site) for link in page.loaded}
    for file in site.rglob("*.css"):
        loaded.update(re.findall(r"""(?:url\(|@import )["']?([^"')]+)""", file.read_text(encoding="utf-8")))
    assert len(loaded) > 10
    assert [link for link in sorted(loaded) if ELSEWHERE.match(link)] == []
    assert "https://x.org/a.js" in Page('<script src="https://x.org/a.js">').loaded


@pytest.mark.browser
def test_a_browser_asks_no_other_host(site: Path, browser: Any) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in ("index.html", "commands.html"):
        page.goto((site / name).as_uri())
        page.wait_for_load_state("networkidle")
    page.close()
    assert len(asked) > 4
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    anchors = {anchor for page in pages_of(site) for anchor in page.anchors}
    assert ">nw.specific_neurons<" in (site / "api" / "index.html").read_text(encoding="utf-8")
    with scripts_of("tools/site") as script:
        homes = script("generated_api").public_names("")
    assert set(homes) == set(dir(nw)) - {"edit", "__version__"}  # a room, not a name
    assert set(homes.values()) <= anchors
    assert f"{Method.__module__}.{Method.__qualname__}" in anchors


def test_every_command_is_on_the_page_and_torch_is_not_needed_for_it(site: Path) -> None:
    text = (site / "commands.html").read_text(encoding="utf-8")
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for path in [f"{name} {below}" for below in getattr(command, "commands", ())] or [name]:
            assert f">neuronwise {path}<" in text, path
    code = "import sys; sys.path.insert(0, 'tools/site'); import generated_commands as g; print(len(g.commands_page()))"
    code += "; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_links_of_the_readme_are_absolute_and_lead_somewhere(site: Path) -> None:
    """It is read on package indexes too. The addresses are those of pyproject.toml."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 10
    for link in links:
        if link.endswith(".png"):  # seen in a clone; a release makes pictures absolute
            assert (ROOT / link).exists(), link
        elif link.startswith(urls["Documentation"]):
            page, _, anchor = link.removeprefix(urls["Documentation"] + "/").partition("#")
            assert anchor in Page((site / page).read_text(encoding="utf-8")).anchors | {""}, link
        else:
            kept = re.fullmatch(re.escape(urls["Source"]) + "/(?:blob|tree|raw)/main/(.+)", link)
            assert kept is not None, link
            assert (ROOT / kept[1]).exists(), link


def test_every_schema_is_on_the_page(site: Path) -> None:
    text = (site / "schemas.html").read_text(encoding="utf-8")
    assert [name for name in nw.schemas() if f">{name}<" not in text] == []
