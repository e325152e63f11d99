"""White in place of the object."""

from __future__ import annotations

from PIL import Image

from neuronwise.images.inpaint.table import Fill, Inpainting


def make(where: str) -> Fill:
    """``where`` is what a user writes after "blank:"; this one needs nothing."""
    return lambda image, mask, name: Image.new("RGB", image.size, "white")


INPAINTING = Inpainting("blank", make)
