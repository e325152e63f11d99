"""COCO photos with what is annotated on them and what the model says of them: shared by the caption benchmarks."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import neuronwise as nw
from neuronwise.answers.naming import names, objects_named
from neuronwise.measure.bootstrap import mean_interval

WORDS = 24  # the most tokens of a caption


@dataclass
class Photo:
    """A photo, the categories annotated on it, those its human captions name, and what the model says."""

    path: Path
    objects: set[str]
    named: set[str]
    supercategories: dict[str, str]
    text: str = ""
    nouns: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.name


def photos(folder: Path) -> list[Photo]:
    """All photos with instance annotations, val first, in the order of their names."""
    found = []
    for part in ("val2017", "train2017"):
        content = json.loads((folder / "annotations" / f"instances_{part}.json").read_text(encoding="utf-8"))
        spoken = json.loads((folder / "annotations" / f"captions_{part}.json").read_text(encoding="utf-8"))
        categories = {category["id"]: category for category in content["categories"]}
        kinds = {category["name"]: category["supercategory"] for category in categories.values()}
        there: dict[int, set[str]] = {image["id"]: set() for image in content["images"]}
        for row in content["annotations"]:
            there[row["image_id"]].add(categories[row["category_id"]]["name"])
        said: dict[int, set[str]] = {}
        for row in spoken["annotations"]:
            said.setdefault(row["image_id"], set()).update(objects_named(row["caption"]))
        for image in sorted(content["images"], key=lambda image: image["file_name"]):
            path = folder / part / image["file_name"]
            if path.exists() and there[image["id"]]:
                found.append(Photo(path, there[image["id"]], said.get(image["id"], set()), kinds))
    return found


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def add_line(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")


def caption_all(model: nw.Model, shown: Sequence[Photo], cache: Path) -> None:
    """Fill in what the model says of each photo; what is in the cache is not asked again."""
    known = {row["photo"]: row for row in lines_of(cache)}
    for photo in shown:
        if photo.name not in known:
            run = caption(model, photo)
            row = {"photo": photo.name, "text": run.text, "nouns": [concept.word for concept in run.concepts]}
            add_line(cache, row)
            known[photo.name] = row
        photo.text, photo.nouns = known[photo.name]["text"], known[photo.name]["nouns"]
    print(f"{len(shown)} photos captioned", file=sys.stderr)


def caption(model: nw.Model, photo: Photo) -> nw.Run:
    return model.run(photo.path, max_new_tokens=WORDS)


def spoken_objects(photo: Photo) -> Iterator[tuple[str, str]]:
    """(word, category) of every noun of the caption that stands for a COCO category."""
    for word in photo.nouns:
        for category in objects_named(word) & objects_named(photo.text):
            yield word, category


def kept(nouns: Sequence[str], text: str) -> float | None:
    """The share of some nouns that a text still names; None when there are none."""
    return sum(names(text, noun) for noun in nouns) / len(nouns) if nouns else None


def repetition(text: str) -> float:
    """The share of a text's word pairs that were said before in it."""
    words = text.lower().split()
    pairs = list(itertools.pairwise(words))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def interval(values: Sequence[float | bool | None]) -> str:
    """Mean and 95 % bootstrap interval over cases; a dash without any."""
    found = mean_interval(None if value is None else float(value) for value in values)
    return f"{found.mean:.2f} ({found.low:.2f}–{found.high:.2f})" if found else "–"


def opened(parser: argparse.ArgumentParser, results: str) -> tuple[argparse.Namespace, nw.Model, list[Photo]]:
    """The options that all caption benchmarks share beside their own, the model, and its captions of the photos."""
    parser.add_argument("folder", type=Path, help="a folder with annotations/, train2017/ and val2017/")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--captions", type=Path, help="a captions.jsonl of another run, so that they are not made anew")
    parser.add_argument("--out", type=Path, default=Path(results))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    model = nw.load(options.model)
    shown = photos(options.folder)
    caption_all(model, shown, options.captions or options.out / "captions.jsonl")
    return options, model, shown
