"""Photos for mPLUG-Owl2: stretched to a square, then to the encoder's size, normed with CLIP's mean and deviation."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil


class MPLUGOwl2ImageProcessor(CLIPImageProcessorPil):
    """The published steps: resize to a square of the longer edge, then to `size`, both bicubic; nothing is cut off."""

    size = {"height": 448, "width": 448}
    default_to_square = True
    do_center_crop = False
    crop_size = None

    def _preprocess(self, images: list[np.ndarray], *args: Any, **kwargs: Any) -> Any:
        squares = []
        for image in images:  # (3, height, width)
            edge = max(image.shape[-2:])
            squares.append(self.resize(image, SizeDict(height=edge, width=edge), PILImageResampling.BICUBIC))
        return super()._preprocess(squares, *args, **kwargs)

    @classmethod
    def as_published(cls, other: Any) -> MPLUGOwl2ImageProcessor:
        """With the values of the `CLIPImageProcessor` that the published folder names."""
        size = dict(other.size)
        edge = int(size.get("height") or size["shortest_edge"])
        return cls(
            size={"height": edge, "width": edge},
            resample=other.resample,
            rescale_factor=other.rescale_factor,
            image_mean=other.image_mean,
            image_std=other.image_std,
        )
