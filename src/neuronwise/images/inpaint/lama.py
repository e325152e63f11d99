"""LaMa (Suvorov et al. 2022) as a TorchScript file: image and mask in [0, 1], sides a multiple of 8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from neuronwise.errors import ImageError
from neuronwise.images.inpaint.table import Fill, Inpainting
from neuronwise.images.masks import Mask


def _lama(where: str) -> Fill:
    import torch

    if not Path(where).is_file():
        raise ImageError(f"There is no file '{where}' with a LaMa model.")
    try:
        network = torch.jit.load(where, map_location="cpu").eval()
    except RuntimeError as error:
        raise ImageError(f"'{where}' is not a TorchScript file.") from error

    def fill(image: Image.Image, mask: Mask, name: str | None) -> Image.Image:
        height, width = mask.shape
        across, down = -width % 8, -height % 8
        photo = np.pad(np.asarray(image), ((0, down), (0, across), (0, 0)), mode="symmetric").astype(np.float32) / 255
        hole = np.pad(mask, ((0, down), (0, across)), mode="symmetric").astype(np.float32)
        with torch.no_grad():
            out = network(torch.from_numpy(photo).permute(2, 0, 1)[None], torch.from_numpy(hole)[None, None])
        pixels = (out[0].permute(1, 2, 0)[:height, :width].clamp(0, 1) * 255).round().byte()
        return Image.fromarray(pixels.numpy())

    return fill


LAMA = Inpainting("lama:FILE.pt", _lama)
