"""What the site adds to docs/: generated pages, files of the repository that stand beside docs/, and their links."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generated_api import api_pages
from generated_commands import commands_page
from generated_schemas import schemas_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]
# Files outside of docs/ that are pages of the site.
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md",
           "training/README.md": "training.md", "benchmarks/README.md": "benchmarks.md"}  # fmt: skip
# [text](file#anchor), or [label]: file#anchor at the end of a page.
LINK = re.compile(r"(\]\(|^\[[^]]+\]: +)(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\)|$)", re.MULTILINE)
TABLE_ROW = re.compile(r"^\| \[[^]]*\]\(([\w-]+\.md)\)", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the parts of the navigation that follow from what there is."""
    results = TABLE_ROW.findall((DOCS / "results" / "README.md").read_text(encoding="utf-8"))
    filled = {"results/": [f"results/{name}" for name in ("README.md", *results)], "api/": list(api_pages())}
    config.nav = _filled(config.nav or [], filled)
    return config


def _filled(entries: list[Any], filled: Mapping[str, list[str]]) -> list[Any]:
    """The navigation with the pages of a folder in place of its name."""
    done: list[Any] = []
    for entry in entries:
        if isinstance(entry, str):
            done += filled.get(entry, [entry])
        else:
            done.append({title: _filled(below, filled) for title, below in entry.items()})
    return done


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of docs/."""
    pages = {**api_pages(), "commands.md": commands_page(), "schemas.md": schemas_page()}
    for outside, page in OUTSIDE.items():
        pages[page] = _relinked((ROOT / outside).read_text(encoding="utf-8"), ROOT / outside, page)
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that lead out of docs/ lead to the page of that file, or to the repository."""
    if page.file.generated_by:
        return markdown
    return _relinked(markdown, DOCS / page.file.src_uri, page.file.src_uri)


def _relinked(text: str, written_in: Path, page: str) -> str:
    """The text with links to files, relative to where it was written, made links of a page of the site."""

    def relink(match: re.Match[str]) -> str:
        start, link, anchor = match.groups()
        path = Path(os.path.normpath(written_in.parent / link))
        if not path.exists() or not path.is_relative_to(ROOT):
            return match.group(0)  # which mkdocs warns of
        target = path.relative_to(ROOT).as_posix()
        if path.is_relative_to(DOCS) and path.suffix != ".py":
            target = os.path.relpath(path, (DOCS / page).parent)
        elif target in OUTSIDE:
            target = os.path.relpath(DOCS / OUTSIDE[target], (DOCS / page).parent)
        else:
            target = f"{SOURCE}/{'tree' if path.is_dir() else 'blob'}/main/{target}"
        return f"{start}{target}{anchor or ''}"

    return LINK.sub(relink, text)
