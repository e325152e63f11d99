"""Does heat lie on the object? Heatmaps of a word's neurons against the object's outline, over annotated photos.

    python benchmarks/heat.py DATA/coco-mini/annotations/instances_val2017.json DATA/coco-mini/val2017

For every noun of a caption that names an annotated category: whether the hottest point falls inside of the object
(pointing), and the intersection over union of the object with the hottest part of the photo as large as the object
(IoU), for the neurons of several methods and for random ones. Chance is the share of the photo that the object takes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import neuronwise as nw
from neuronwise.answers.naming import objects_named

METHODS: dict[str, dict[str, Any]] = {
    "contribution": {},
    "contribution, contrast=10, normalize": {"contrast": 10, "normalize": True},
    "gradient_activation": {"method": "gradient_activation"},
    "random": {"method": "random"},
}


def outlines(instances: Path) -> dict[str, dict[str, list[Any]]]:
    """Polygons of each photo's objects: file name → category → polygons (crowds are left out)."""
    content = json.loads(instances.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, dict[str, list[Any]]] = {}
    for row in content["annotations"]:
        if isinstance(row["segmentation"], list):
            photo = found.setdefault(files[row["image_id"]], {})
            photo.setdefault(names[row["category_id"]], []).extend(row["segmentation"])
    return found


def object_mask(size: tuple[int, int], polygons: list[Any]) -> np.ndarray:
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        draw.polygon(polygon, fill=1)
    return np.asarray(mask)


def judge(heat: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """(pointing, IoU) of one heatmap (H, W) and one object's mask."""
    hottest = np.unravel_index(np.nanargmax(heat), heat.shape)
    hot = heat >= np.nanquantile(heat, 1 - mask.mean())
    return float(mask[hottest]), float((hot & mask).sum() / (hot | mask).sum())


def interval(values: list[float], seed: int = 0) -> str:
    draws = np.random.default_rng(seed).choice(np.asarray(values), (2000, len(values))).mean(1)
    return f"{np.mean(values):.2f} [{np.quantile(draws, 0.025):.2f}, {np.quantile(draws, 0.975):.2f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", type=Path, help="COCO instances_*.json")
    parser.add_argument("photos", type=Path, help="the folder of its photos")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--top", type=int, default=50, help="neurons whose mean activation is the heat")
    parser.add_argument("--largest", type=float, default=0.6, help="objects that take more of the photo are left out")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = nw.load(options.model)
    judged: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    shares: list[float] = []
    for name, objects in outlines(options.instances).items():
        run = model.run(image=options.photos / name, max_new_tokens=30, heat=True)
        assert run.image is not None
        for concept in run.concepts:
            for category in set(objects_named(concept.word)) & set(objects):
                mask = object_mask(run.image.size, objects[category])
                if not 0 < mask.mean() <= options.largest:
                    continue
                shares.append(float(mask.mean()))
                for method, settings in METHODS.items():
                    found = nw.locate(model, run, concept, top=options.top, **settings)
                    judged[method].append(judge(nw.heatmap(model, run, found).image(), mask))
        print(f"{name}: {run.text}", file=sys.stderr)
    print(
        f"{len(shares)} words for annotated objects; an object takes {np.mean(shares):.2f} of its photo on average.\n"
    )
    print("| neurons | hottest point on the object | IoU at the object's size |\n|---|---|---|")
    for method, rows in judged.items():
        print(f"| {method} | {interval([p for p, _ in rows])} | {interval([i for _, i in rows])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
