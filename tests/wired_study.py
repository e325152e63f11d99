"""A folder of photos with red squares and without, and a wired model that says "dog mat" or "mat mat" of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from neuronwise.model.model import Model
from wired import HABITS, PLANTED, red_square, wired_llava

PLACES = ((0, 0), (14, 7), (7, 14), (2, 9), (10, 3), (5, 5))
AFTER_DOG = 26  # a dimension of the stream that no other part uses


def talking(tokenizer: Any) -> Model:
    """Of red it says "dog mat", of anything else "mat mat": the habits of the wired model are taken away."""
    model = wired_llava(tokenizer, noise=0.0)
    dog, mat = (model.tokenizer.convert_tokens_to_ids(f"▁{word}") for word in ("dog", "mat"))
    language = model.module.model.language_model
    with torch.no_grad():
        language.layers[1].mlp.down_proj.weight[:, list(HABITS)] = 0.0
        language.embed_tokens.weight[dog, AFTER_DOG] = 1.0
        model.module.lm_head.weight[mat, AFTER_DOG] = 2000.0
    return model


def write_photos(folder: Path, plain: int = 4) -> Path:
    """``len(PLACES)`` photos of a "dog" with its polygon, and ``plain`` gray ones with a "cat" annotated."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (left, top) in enumerate(PLACES):
        red_square(left, top, seed=number)[0].save(folder / f"dog{number}.png")
        right, bottom = left + 14, top + 14
        square = [[left, top, right, top, right, bottom, left, bottom]]
        rows.append(
            {"id": f"dog{number}", "file_name": f"dog{number}.png", "captions": ["a dog on the mat"],
             "objects": [{"category": "dog", "segmentation": square}]}
        )  # fmt: skip
    for number in range(plain):
        pixels = np.random.default_rng(100 + number).integers(90, 110, (28, 28, 1)).repeat(3, 2).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"plain{number}.png")
        cat = {"category": "cat", "segmentation": [[3, 3, 12, 3, 12, 12, 3, 12]]}
        rows.append(
            {"id": f"plain{number}", "file_name": f"plain{number}.png", "captions": ["a cat on the mat"],
             "objects": [cat]}
        )  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


RECIPE: dict[str, Any] = {
    "kind": "suppression", "model": "wired", "prompt": "the", "max_new_tokens": 2, "K": [len(PLANTED)],
    "methods": ["two_stage", "contribution", "random", "random_same_layers"], "metrics": ["bleu-1"], "without": 3,
    "dilation": 0, "interventions": ["suppress"],
}  # fmt: skip
