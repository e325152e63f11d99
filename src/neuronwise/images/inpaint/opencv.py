"""OpenCV's inpainting: the methods of Telea (2004) and of Bertalmio et al. (2001)."""

from __future__ import annotations

import numpy as np
from PIL import Image

from neuronwise.images.inpaint.table import Fill, Inpainting
from neuronwise.images.masks import Mask

RADIUS = 5  # pixels around a point that are looked at


def _opencv(flag: str) -> Fill:
    def fill(image: Image.Image, mask: Mask, name: str | None) -> Image.Image:
        import cv2

        return Image.fromarray(cv2.inpaint(np.asarray(image), mask.astype(np.uint8), RADIUS, getattr(cv2, flag)))

    return fill


TELEA = Inpainting("telea", lambda where: _opencv("INPAINT_TELEA"))
NS = Inpainting("ns", lambda where: _opencv("INPAINT_NS"))
