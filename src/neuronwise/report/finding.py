"""Writing a finding to a folder: the page to look at and the object behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuronwise.files import write_json
from neuronwise.read.finding import Finding, FoundConcept
from neuronwise.report.page import ConceptHeat, write_page


def write_finding(
    directory: str | os.PathLike[str], finding: Finding, content: Mapping[str, Any] | None = None
) -> Path:
    """Write ``finding.json`` and ``index.html`` into ``directory``, made if need be; returns the page's path.

    ``content`` is ``finding.to_dict()``, with whatever the caller adds to it.
    """
    content = finding.to_dict() if content is None else content
    heat = [_heat(concept) for concept in finding.concepts]
    page = write_page(directory, content, finding.run.image, heat)
    write_json(page.with_name("finding.json"), content)
    return page


def _heat(concept: FoundConcept) -> ConceptHeat | None:
    if concept.heat is None:
        return None if concept.heat_note is None else ConceptHeat(note=concept.heat_note)
    heat = concept.heat
    return ConceptHeat(heat.grid.tolist(), heat.each.tolist(), heat.box, concept.heat_note)
