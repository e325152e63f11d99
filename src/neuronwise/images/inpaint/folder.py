"""Photos that were inpainted before, in a folder, found by the photo's file name."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from neuronwise.errors import ImageError
from neuronwise.images.inpaint.table import Fill, Inpainting
from neuronwise.images.masks import Mask
from neuronwise.images.open import open_image


def _folder(where: str) -> Fill:
    folder = Path(where)
    if not folder.is_dir():
        raise ImageError(f"There is no folder '{where}' with inpainted photos.")

    def fill(image: Image.Image, mask: Mask, name: str | None) -> Image.Image:
        if name is None:
            raise ImageError("Ready inpainted photos are found by their file name; give the photo as a path.")
        stem = Path(name).stem
        found = sorted(path for path in folder.iterdir() if path.stem == stem)
        if not found:
            raise ImageError(f"The folder '{folder}' has no inpainted photo named {stem}.*.")
        ready = open_image(found[0])
        if ready.size != image.size:
            raise ImageError(f"'{found[0]}' is {ready.size}, its photo {image.size}: they do not belong together.")
        return ready

    return fill


FOLDER = Inpainting("folder:DIR", _folder, ready=True)
