"""Writing a finding to a folder: the page to look at and the object behind it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from neuronwise.files import filling, write_json
from neuronwise.read.finding import Finding, FoundConcept
from neuronwise.read.findings import Findings
from neuronwise.report.filled import gallery_element
from neuronwise.report.page import ConceptHeat, write_page

_UNSAFE = re.compile(r"[^\w.-]")


def write_finding(
    directory: str | os.PathLike[str], finding: Finding, content: Mapping[str, Any] | None = None
) -> Path:
    """Write ``finding.json`` and ``index.html`` into ``directory``, made if need be; returns the page's path.

    ``content`` is ``finding.to_dict()``, with whatever the caller adds to it.
    """
    content = finding.to_dict() if content is None else content
    heat = [heat_of(concept) for concept in finding.concepts]
    with filling(directory) as folder:
        page = write_page(folder, content, finding.run.image, heat)
        write_json(folder / "finding.json", content)
    return Path(directory) / page.name


def write_findings(
    directory: str | os.PathLike[str], findings: Findings, content: Mapping[str, Any] | None = None
) -> Path:
    """Write the page of several photos or texts together, and one for each into a folder of its own.

    ``index.html`` and ``finding.json`` in ``directory``, and ``ID/`` as ``write_finding`` writes it. Returns the page.
    """
    content = findings.to_dict() if content is None else content
    shown: list[tuple[str, str, Image.Image | None]] = []
    with filling(directory) as folder:
        for name, finding in findings.each.items():
            called = _UNSAFE.sub("_", name)
            own = {**finding.to_dict(), **{key: content[key] for key in ("command",) if key in content}}
            write_finding(folder / called, finding, own)
            said = finding.run.text if findings.of == "photos" else f"{finding.run.prompt} {finding.run.text}".strip()
            shown.append((f"{called}/index.html", said, finding.run.image))
        page = write_page(folder, content, gallery=gallery_element(shown))
        write_json(folder / "finding.json", content)
    return Path(directory) / page.name


def heat_of(concept: FoundConcept) -> ConceptHeat | None:
    """A concept's heat as a page takes it."""
    if concept.heat is None:
        return None if concept.heat_note is None else ConceptHeat(note=concept.heat_note)
    heat = concept.heat
    return ConceptHeat(heat.grid.tolist(), heat.each.tolist(), heat.box, concept.heat_note)
