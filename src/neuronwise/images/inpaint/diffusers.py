"""A local inpainting pipeline of the diffusers library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from neuronwise.errors import ImageError
from neuronwise.images.inpaint.table import Fill, Inpainting
from neuronwise.images.masks import Mask


def _diffusers(where: str) -> Fill:
    try:
        from diffusers import AutoPipelineForInpainting  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImageError("Inpainting by a pipeline needs the diffusers library: pip install diffusers.") from error
    if not Path(where).is_dir():
        raise ImageError(f"There is no folder '{where}' with an inpainting pipeline.")
    import torch

    pipeline = AutoPipelineForInpainting.from_pretrained(where, local_files_only=True)

    def fill(image: Image.Image, mask: Mask, name: str | None) -> Image.Image:
        hole = Image.fromarray(mask.astype(np.uint8) * 255)
        generator = torch.Generator().manual_seed(0)
        out = pipeline(prompt="background", image=image, mask_image=hole, generator=generator).images[0]
        return out.convert("RGB").resize(image.size)

    return fill


DIFFUSERS = Inpainting("diffusers:FOLDER", _diffusers)
