"""Fixed views of the training photos and what the frozen encoders see in them, computed once and kept in a folder.

    python training/views.py --coco DATA/coco-mini --more DATA/coco-more --classes DATA/imagenet-one-each \
        --flickr DATA/flickr8k --store RUNS/views

A set of photos under a round of views is one file of features for each encoder, written part by part: the same command
goes on from where it was interrupted. Round 0 is the whole photo, later rounds are random crops; `objects` are crops
around annotated objects.
"""

import argparse
import dataclasses
import json
import pathlib
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from neuronwise.architectures.builtin import PAIRED, read_paired
from neuronwise.architectures.parts import fetch
from photos import SIDE, Box, Photo, around

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PART = 32
ENCODERS = ("dinov2", "efficientnet")


@dataclasses.dataclass
class View:
    """Which part of which photo is seen: `box` is relative to the photo, `flip` mirrors it, `words` name an object."""

    photo: int
    box: Box = (0.0, 0.0, 1.0, 1.0)
    flip: bool = False
    recolor: tuple[float, float, float] | None = None
    word: str = ""

    def of(self, image: Image.Image, side: int = SIDE) -> Image.Image:
        left, top, right, bottom = self.box
        edges = (left * image.width, top * image.height, right * image.width, bottom * image.height)
        view = image.resize((side, side), Image.Resampling.BICUBIC, box=edges)
        if self.flip:
            view = ImageOps.mirror(view)
        kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for kind, strength in zip(kinds, self.recolor or (), strict=False):
            view = kind(view).enhance(strength)
        return view


def cropped(photo: int, chance: random.Random, smallest: float, box: Box = (0, 0, 1, 1), word: str = "") -> View:
    """Draw a crop of at least the share `smallest` of `box`, mirrored and recolored at random."""
    area, ratio = chance.uniform(smallest, 1), chance.uniform(0.8, 1.25)
    across, down = min((area * ratio) ** 0.5, 1), min((area / ratio) ** 0.5, 1)
    left = box[0] + chance.uniform(0, 1 - across) * (box[2] - box[0])
    top = box[1] + chance.uniform(0, 1 - down) * (box[3] - box[1])
    inner = (left, top, left + across * (box[2] - box[0]), top + down * (box[3] - box[1]))
    recolor = (chance.uniform(0.7, 1.3), chance.uniform(0.7, 1.3), chance.uniform(0.7, 1.3))
    return View(photo, inner, chance.random() < 0.5, recolor if chance.random() < 0.5 else None, word)


def draw_views(photos: list[Photo], kind: str, smallest: float = 0.4) -> list[View]:
    """Return the views of a round: "0" the whole photos, "1", "2", … crops, "objects" crops around objects."""
    if kind == "0":
        return [View(number) for number in range(len(photos))]
    chance = random.Random(f"views {kind}")
    if kind != "objects":
        return [cropped(number, chance, smallest) for number in range(len(photos))]
    views = []
    for number, photo in enumerate(photos):
        large = [(word, box) for word, box in photo.boxes if (box[2] - box[0]) * (box[3] - box[1]) > 0.01]
        # A crowd of one kind counts a few times, not twenty.
        for word in sorted({word for word, _ in large}):
            boxes = [box for other, box in large if other == word]
            for box in chance.sample(boxes, min(len(boxes), 2 if word == "person" else 3)):
                views.append(cropped(number, chance, 0.8, around(box, chance), word))
    return views


def pixels(views: list[Image.Image]) -> torch.Tensor:
    """Stack views to DINOv2's input (B, 3, 224, 224)."""
    stacked = np.stack([(np.asarray(view, dtype=np.float32) / 255 - MEAN) / DEVIATION for view in views])
    return torch.from_numpy(stacked).float().permute(0, 3, 1, 2)


Encode = Callable[[torch.Tensor], torch.Tensor]


def encoders() -> dict[str, tuple[Encode, int]]:
    """Return the tower's encoders by name, in the order of their features, each with its width."""
    tower: Any = read_paired([fetch(part) for part in PAIRED.parts])
    half = tower.to(torch.bfloat16)
    return {
        "dinov2": (lambda seen: half.dinov2(seen).last_hidden_state, 1536),
        "efficientnet": (half.efficientnet_features, 1280),
    }


class Joined:
    """The features of several encoders, joined cell by cell where a row is asked for."""

    def __init__(self, parts: list[np.ndarray]):
        self.parts = parts

    def __getitem__(self, row: int) -> np.ndarray:
        return np.concatenate([part[row] for part in self.parts], axis=-1)


class Store:
    """A folder of features: for each set, round and encoder a `.npy` (views, cells, width) in float16 and a `.json`."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def compute(self, name: str, photos: list[Photo], kind: str, encoder: str, encode: Encode, width: int) -> None:
        """Compute what is missing of a set's round; `encode` maps pixels to features (B, 64, width)."""
        views = draw_views(photos, kind)
        file, index = self.folder / f"{name}-{kind}-{encoder}.npy", self.folder / f"{name}-{kind}-{encoder}.json"
        done = json.loads(index.read_text())["done"] if index.is_file() else 0
        if not index.is_file():
            np.lib.format.open_memmap(file, "w+", np.float16, (len(views), 64, width)).flush()
        features, began = np.load(file, mmap_mode="r+"), time.time()
        for at in range(done, len(views), PART):
            part = views[at : at + PART]
            seen = pixels([view.of(photos[view.photo].image) for view in part])
            features[at : at + PART] = encode(seen.to(torch.bfloat16)).half().numpy()
            if at // PART % 8 == 7 or at + PART >= len(views):
                features.flush()
                done = min(at + PART, len(views))
                index.write_text(json.dumps({"done": done, "views": [dataclasses.asdict(view) for view in views]}))
                print(f"{name}-{kind}: {done} of {len(views)}, {time.time() - began:.0f} s", flush=True)

    def read(self, name: str, kind: str) -> tuple[Joined, list[View]]:
        """Return the features and views that are done so far."""
        files = [self.folder / f"{name}-{kind}-{encoder}" for encoder in ENCODERS]
        indices = [json.loads(file.with_suffix(".json").read_text()) for file in files]
        views = [View(**entry | {"box": tuple(entry["box"])}) for entry in indices[0]["views"]]
        done = min(index["done"] for index in indices)
        return Joined([np.load(file.with_suffix(".npy"), mmap_mode="r") for file in files]), views[:done]

    def rounds(self, name: str) -> list[str]:
        """Return the rounds of views that are there for a set."""
        found = [
            {file.stem.split("-")[1] for file in self.folder.glob(f"{name}-*-{encoder}.json")} for encoder in ENCODERS
        ]
        return sorted(set.intersection(*found))


def arguments() -> argparse.Namespace:
    from material import add_folders

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser)
    parser.add_argument("--store", type=pathlib.Path, required=True, help="folder of the features")
    return parser.parse_args()


def main() -> None:
    from material import Material

    options = arguments()
    torch.set_num_threads(options.threads)
    material, store = Material(options), Store(options.store)
    rounds = [(name, "0") for name in ("coco", "classes", "coco_dev", "classes_dev", "flickr_dev", "flickr")]
    rounds += [("coco", "objects"), ("coco", "1"), ("classes", "1"), ("coco", "2")]
    with torch.inference_mode():
        for encoder, (encode, width) in encoders().items():
            for name, kind in rounds:
                store.compute(name, material.photos(name), kind, encoder, encode, width)


if __name__ == "__main__":
    main()
