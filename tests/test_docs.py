"""Every block of Python and every command of README and docs runs, page by page, and prints what the page says."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import skimage
from PIL import Image

import neuronwise as nw
from fact_records import COUNTERFACT
from scripts import ROOT, scripts_of
from shell import shell
from wired import red_square
from wired_study import PLACES, talking

pytestmark = pytest.mark.long

with scripts_of("docs") as script:
    refresh = script("refresh")
PAGES = [
    path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if re.search(r"^```(python|console)$", path.read_text(), re.MULTILINE)
]
SKIMAGE = ".venv/lib/python3.11/site-packages/skimage"
# Commands that need what a test does not have: the index of `make demo`, published checkpoints.
ELSEWHERE = re.compile(r"demo/|minigpt4|^rm ")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


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


# What a page takes for granted: files beside it, and names that are defined. They are others than the page's own, so
# what these pages print is not compared.
GIVEN: dict[str, Callable[[Path, Any], dict[str, Any]]] = {
    "evaluate.md": facts,
    "studies.md": photos,
    "papers-models.md": checkpoint,
}


def alike(page: str, printed: str) -> bool:
    """Whether both say the same in the same numbers, but for rounding and the width of columns; "..." ends a page's."""
    wanted, got = page.split(), printed.split()
    if wanted and wanted[-1] == "...":
        wanted = wanted[:-1]
        got = got[: len(wanted)]
    pairs = zip(wanted, got, strict=False)
    return len(wanted) == len(got) and all(one == other or _close(one, other) for one, other in pairs)


def _close(one: str, other: str) -> bool:
    if NUMBER.split(one) != NUMBER.split(other):
        return False
    numbers = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(math.isclose(float(x), float(y), rel_tol=0.02, abs_tol=1e-3) for x, y in numbers)


def test_outputs_are_compared() -> None:
    assert alike("L1.U2  0.5 a\nb\n...", "L1.U2 0.501    a\nb c\n")
    assert alike("9.2e-07,", "4.1e-07,")
    for other in ("L1.U3 0.5 a b", "L1.U2 0.6 a b", "L1.U2 0.5 a", "L1.U2 0.5 a c", "L1.U2 0.5 a b c"):
        assert not alike("L1.U2 0.5 a b", other)


@pytest.fixture(scope="module")
def loaded() -> Callable[..., Any]:
    """``load``, which opens each of the built-in models once."""
    return cache(nw.load)


@pytest.mark.builtin
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_prints_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any, loaded: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("neuronwise.model.load", loaded)
    session: dict[str, Any] = {"__name__": "__main__", **GIVEN.get(page.name, lambda *_: {})(tmp_path, tiny_tokenizer)}
    printed: str | None = None
    for _, kind, body in refresh.BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            printed = refresh.python_output(body, session)
        elif kind == "text" and printed is not None:
            assert page.name in GIVEN or alike(body, printed), printed
            printed = None
        elif kind == "console":
            printed = None
            for command, wanted in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
                if not ELSEWHERE.search(command):
                    got = said(command)
                    assert alike(wanted, got), f"{command}\n{got}"


def said(command: str) -> str:
    """What a command prints, on standard error and output."""
    program, *arguments = shlex.split(command.replace(SKIMAGE, str(Path(skimage.__file__).parent)))
    if program == "cp":
        shutil.copy(*arguments)
        return ""
    assert program == "neuronwise", command
    done = shell(*arguments)
    return done.stderr + done.stdout
