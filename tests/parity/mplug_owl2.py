"""A tiny mPLUG-Owl2 whose every tensor and input follows from its name: the same in both libraries, and in every run.

`tools/published/record_mplug_owl2.py` fills the published modules with it and writes what they answer; the tests
fill ours.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent
EXPECTED = HERE / "mplug_owl2.safetensors"  # what the published modules answer
PUBLISHED = HERE / "mplug_owl2.json"  # their configuration, tensor names and shapes, prompts' ids
SENTENCEPIECE = HERE / "mplug_owl2.model"  # a tiny vocabulary in the published format

IMAGE = -200  # the published place holder of an image
QUERIES = 6
SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "pad_token_id": 0,
}  # fmt: skip
VISION: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
    "patch_size": 14,
}  # fmt: skip
ABSTRACTOR: dict[str, Any] = {
    "hidden_size": 24, "encoder_hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_learnable_queries": QUERIES, "grid_size": 4,
}  # fmt: skip
PROMPTS = [
    "USER: <|image|>Describe the image. ASSISTANT:",
    "USER: What is the capital of France? ASSISTANT:",
    "USER: <|image|> <|image|>Which of the two is red? ASSISTANT: the first</s>USER: Why?\n ASSISTANT:",
    "A picture <|image|> and words",
]
SPREAD = 0.35  # weights wide enough for every part to move the logits


def filled(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor called `name`: gains around 1, biases and weights around 0, from a seed made of the name."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape)).astype(np.float32)
    if ("norm" in name and name.endswith("weight")) or name.endswith("ffn_ln.weight"):
        return torch.from_numpy(1 + 0.2 * values)
    return torch.from_numpy(SPREAD * values)


def pixels(count: int) -> Tensor:
    """`count` images as the encoder gets them: (count, 3, 56, 56)."""
    side = VISION["image_size"]
    values = np.random.RandomState(7).standard_normal((count, 3, side, side)).astype(np.float32)
    return torch.from_numpy(values)


def photo() -> np.ndarray:
    """A photo (height 60, width 90, 3), smooth and with an edge."""
    y, x = np.mgrid[0:60, 0:90].astype(np.float64)
    bands = [127 + 120 * np.sin(x / 9), 127 + 120 * np.cos(y / 7), np.where(x + y > 80, 230.0, 20.0)]
    return np.stack(bands, axis=-1).round().astype(np.uint8)


# Input ids as the published code gets them, IMAGE where an image goes, and 1/0 for words and padding.
CASES: dict[str, dict[str, Any]] = {
    "words": {"ids": [[1, 9, 8, 44, 121, 7, 30, 2, 3], [0, 0, 0, 1, 250, 17, 12, 66, 5]], "images": 0},
    "image": {"ids": [[1, 9, 8, IMAGE, 121, 7, 30, 12], [1, IMAGE, 17, 12, 66, 5, 77, 99]], "images": 2},
    "two images": {"ids": [[1, 9, IMAGE, 33, IMAGE, 121, 7]], "images": 2},
    "image, padded left": {"ids": [[1, 9, 8, IMAGE, 121, 7], [0, 0, 1, IMAGE, 66, 5]], "images": 2},
    "image, padded right": {"ids": [[1, 9, 8, IMAGE, 121, 7], [1, IMAGE, 66, 5, 0, 0]], "images": 2},
}


def expanded(ids: list[list[int]], image_token: int) -> tuple[Tensor, Tensor]:
    """Ids with each place holder as `QUERIES + 1` image tokens, and the mask of what is no padding."""
    rows = [[t for i in row for t in ([image_token] * (QUERIES + 1) if i == IMAGE else [i])] for row in ids]
    whole = torch.tensor(rows)
    return whole, (whole != 0).long()


def published() -> dict[str, Any]:
    return json.loads(PUBLISHED.read_text(encoding="utf-8"))
