"""``Inpainter``: photos without one of their objects, kept by content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
from PIL import Image

from neuronwise.errors import StudyError
from neuronwise.files import make_folder, whole_file
from neuronwise.images.inpaint.table import parsed
from neuronwise.images.masks import Mask, checked
from neuronwise.images.open import open_image


class Inpainter:
    """Fills masked parts of photos.

    ``backend``: "telea" or "ns" (OpenCV), "lama:FILE.pt" (LaMa as TorchScript), "diffusers:FOLDER" (a local inpainting
    pipeline), "folder:DIR" (ready images, found by the photo's file name), or what another package adds. With ``cache``
    the results are kept there as PNG files named by the content of photo, mask and backend. Raises ``ImageError`` for
    anything else, and ``StudyError`` where the cache cannot be written.
    """

    def __init__(self, backend: str = "telea", *, cache: str | os.PathLike[str] | None = None) -> None:
        inpainting, where = parsed(backend)
        self.backend, self.ready = backend, inpainting.ready
        self.cache = None if cache is None else Path(cache)
        self._fill = inpainting.make(where)

    def __call__(self, image: Image.Image, mask: Mask, *, name: str | None = None) -> Image.Image:
        """The photo with everything under ``mask`` (H, W) filled; what lies outside is untouched to the bit.

        ``name`` is the photo's file name, by which a folder of ready images is searched.
        """
        image = open_image(image)
        mask = checked(mask, *image.size)
        if self.ready:
            return self._fill(image, mask, name)
        kept = None if self.cache is None else self.cache / f"{self.digest(image, mask)}.png"
        if kept is not None and kept.is_file():
            return open_image(kept)
        filled = np.asarray(self._fill(image, mask, name))
        result = Image.fromarray(np.where(mask[..., None], filled, np.asarray(image)).astype(np.uint8))
        if kept is not None:
            make_folder(kept.parent, _not_kept)
            with whole_file(kept, _not_kept) as temporary:
                result.save(temporary, format="PNG")
        return result

    def digest(self, image: Image.Image, mask: Mask) -> str:
        """What a result depends on, as a name."""
        parts = (self.backend.encode(), repr(image.size).encode(), image.tobytes(), np.packbits(mask).tobytes())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _not_kept(sentence: str) -> StudyError:
    return StudyError(f"{sentence} What is finished stays; make room and run the same command again.")
