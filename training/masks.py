"""What COCO's masks say is where: how much of each cell of a view is covered by which category."""

import json
import pathlib

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as outlines

from photos import Photo
from views import View

GRID, FINE = 8, 64
CATEGORIES = 80


class Masks:
    """For each photo of a COCO part and each category, how much of each cell of a fine grid its masks cover."""

    def __init__(self, *files: pathlib.Path):
        self.complete: dict[str, bool] = {}
        self.cover: dict[str, dict[str, np.ndarray]] = {}
        for file in files:
            self._read(json.loads(file.read_text()))

    def _read(self, content: dict) -> None:
        categories = {category["id"]: category["name"] for category in content["categories"]}
        sizes = {}
        for entry in content["images"]:
            sizes[entry["id"]] = (entry["file_name"], entry["height"], entry["width"])
            self.complete[entry["file_name"]] = entry.get("annotated", "all") == "all"
            self.cover[entry["file_name"]] = {}
        for annotation in content["annotations"]:
            name, height, width = sizes[annotation["image_id"]]
            outline = annotation["segmentation"]
            if isinstance(outline, list):
                outline = outlines.merge(outlines.frPyObjects(outline, height, width))
            elif isinstance(outline["counts"], list):
                outline = outlines.frPyObjects(outline, height, width)
            area = Image.fromarray(outlines.decode(outline).astype(np.float32), mode="F")
            fine = np.asarray(area.resize((FINE, FINE), Image.Resampling.BOX))
            category = categories[annotation["category_id"]]
            known = self.cover[name].get(category)
            self.cover[name][category] = fine if known is None else np.maximum(known, fine)

    def cells(self, photo: Photo, view: View, words: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coverage (64, 80) of a view's cells by categories, and (80,) whether each category was annotated."""
        name = photo.path.name
        coverage, known = torch.zeros(GRID * GRID, CATEGORIES), torch.zeros(CATEGORIES)
        if name not in self.cover:
            return coverage, known
        if self.complete[name]:
            known += 1
        else:
            known[words["person"]] = 1
        left, top, right, bottom = (side * FINE for side in view.box)
        for category, fine in self.cover[name].items():
            cells = Image.fromarray(fine, mode="F").resize(
                (GRID, GRID), Image.Resampling.BOX, box=(left, top, right, bottom)
            )
            grid = np.asarray(cells)[:, ::-1] if view.flip else np.asarray(cells)
            coverage[:, words[category]] = torch.from_numpy(grid.copy()).flatten()
        return coverage * known, known
