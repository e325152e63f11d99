"""Every Python block of README and docs runs, page by page, as it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fact_records import COUNTERFACT
from scripts import ROOT
from wired import red_square
from wired_study import PLACES, talking

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [
    path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if BLOCK.search(path.read_text())
]


def facts(folder: Path, tokenizer: Any) -> dict[str, Any]:
    """The facts that the page calls DATA/counterfact.json, three that the built-in model knows."""
    rows = []
    for number, (subject, new, true) in enumerate(
        (("France", "Rome", "Paris"), ("Italy", "Paris", "Rome"), ("Germany", "Rome", "Berlin"))
    ):
        asked = {"prompt": "The capital of {} is", "subject": subject, "relation_id": "P36"}
        asked |= {"target_new": {"str": new, "id": "Q1"}, "target_true": {"str": true, "id": "Q2"}}
        rows.append({**COUNTERFACT, "case_id": number, "requested_rewrite": asked})
    (folder / "DATA").mkdir()
    (folder / "DATA" / "counterfact.json").write_text(json.dumps(rows))
    return {}


def photos(folder: Path, tokenizer: Any) -> dict[str, Any]:
    """A tiny model that says "dog" of red, and photos in COCO's layout."""
    coco = folder / "DATA" / "coco"
    (coco / "annotations").mkdir(parents=True)
    (coco / "val2017").mkdir()
    images, objects, said = [], [], []
    for number, (left, top) in enumerate(PLACES):
        red_square(left, top, seed=number)[0].save(coco / "val2017" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 28, "height": 28})
        square = [[left, top, left + 14, top, left + 14, top + 14, left, top + 14]]
        objects.append(
            {"id": number, "image_id": number, "category_id": 1, "segmentation": square, "iscrowd": 0, "area": 196}
        )
        said.append({"id": number, "image_id": number, "caption": "a dog on the mat"})
    dogs = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "dog"}]}
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(dogs))
    (coco / "annotations" / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": said}))
    return {"model": talking(tokenizer)}


def checkpoint(folder: Path, tokenizer: Any) -> dict[str, Any]:
    """A tiny checkpoint in the place of a converted one, and a photo."""
    model = talking(tokenizer)
    model.module.save_pretrained(folder / "owl2")
    model.processor.save_pretrained(folder / "owl2")
    Image.new("RGB", (28, 28), "red").save(folder / "photo.jpg")
    return {}


# What a page takes for granted: files beside it, and names that are defined.
GIVEN: dict[str, Callable[[Path, Any], dict[str, Any]]] = {
    "evaluate.md": facts,
    "studies.md": photos,
    "papers-models.md": checkpoint,
}


@pytest.mark.builtin
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, Any] = {"__name__": "__main__", **GIVEN.get(page.name, lambda *_: {})(tmp_path, tiny_tokenizer)}
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        exec(compile(block, str(page), "exec"), session)
