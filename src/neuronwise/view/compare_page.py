"""Two findings side by side: two photos, two models, or one before and after an edit."""

from __future__ import annotations

from typing import Any

from neuronwise.view.finding_page import saved_finding
from neuronwise.view.pages import Page
from neuronwise.view.viewer import Viewer

LISTED = 500  # findings to choose from


def compare_page(viewer: Viewer, first: str, second: str) -> Page:
    """The page of two findings by their ids, which may be empty; raises ``NeuronwiseError`` for what is no finding."""
    findings = [item for item in viewer.folders.items() if item.kind == "finding" and not item.broken]
    rows = [{"id": one.id, "title": one.title, "model": one.model, "part_of": one.part_of} for one in findings[:LISTED]]
    sides = [_side(viewer, one) if one else None for one in (first, second)]
    photos = {name: "" if side is None else side["photo"] for name, side in zip(("left", "right"), sides, strict=True)}
    shown = [None if side is None else side["finding"] for side in sides]
    data = {"compare": {"findings": rows, "chosen": [first, second], "sides": shown}}
    return Page("compare", "Compare · neuronwise", ("compare",), data, markup=photos)


def _side(viewer: Viewer, identity: str) -> dict[str, Any]:
    page = saved_finding(viewer.folders, viewer.item("finding", identity))
    return {"photo": page.markup["photo"], "finding": page.data["finding"]}
