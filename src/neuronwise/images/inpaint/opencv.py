"""OpenCV's inpainting: the methods of Telea (2004) and of Bertalmio et al. (2001)."""

from __future__ import annotations

import numpy as np
from PIL import Image

from neuronwise.images.inpaint.table import Fill, Inpainting
from neuronwise.images.masks import Mask

RADIUS = 5  # pixels around a point that are looked at


def _telea(_: str) -> Fill:
    import cv2

    return _filling(cv2.INPAINT_TELEA)


def _ns(_: str) -> Fill:
    import cv2

    return _filling(cv2.INPAINT_NS)


def _filling(method: int) -> Fill:
    def fill(image: Image.Image, mask: Mask, name: str | None) -> Image.Image:
        import cv2

        return Image.fromarray(cv2.inpaint(np.asarray(image), mask.astype(np.uint8), RADIUS, method))

    return fill


TELEA = Inpainting("telea", _telea)
NS = Inpainting("ns", _ns)
