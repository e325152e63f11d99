"""Inpainting: a photo without one of its objects, by OpenCV, by a model that the user names, or from a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from neuronwise.errors import ImageError
from neuronwise.files import make_folder, whole_file
from neuronwise.images.masks import Mask, checked
from neuronwise.images.open import open_image

Fill: TypeAlias = "Callable[[np.ndarray[Any, Any], Mask], np.ndarray[Any, Any]]"  # (H, W, 3) bytes → the same
RADIUS = 5  # pixels around a point that OpenCV's methods look at


class Inpainter:
    """Fills masked parts of photos.

    ``backend``: "telea" or "ns" (OpenCV's methods of Telea 2004 and of Bertalmio et al. 2001), "lama:FILE.pt" (LaMa
    as TorchScript: image and mask in [0, 1], sides a multiple of 8), "diffusers:FOLDER" (a local inpainting
    pipeline), or "folder:DIR" (ready images, found by the photo's file name). With ``cache`` the results are kept
    there as PNG files named by the content of photo, mask and backend. Raises ``ImageError`` for anything else.
    """

    def __init__(self, backend: str = "telea", *, cache: str | os.PathLike[str] | None = None) -> None:
        kind, _, where = backend.partition(":")
        if kind not in ("folder", *BACKENDS) or bool(where) == (kind in ("telea", "ns")):
            raise ImageError(
                f"There is no inpainting {backend!r}; there are telea, ns, lama:FILE.pt, diffusers:FOLDER, folder:DIR."
            )
        self.backend = backend
        self.cache = None if cache is None else Path(cache)
        self._folder = Path(where) if kind == "folder" else None
        if self._folder is not None and not self._folder.is_dir():
            raise ImageError(f"There is no folder '{where}' with inpainted photos.")
        self._fill: Fill | None = None if self._folder else BACKENDS[kind](where)

    def __call__(self, image: Image.Image, mask: Mask, *, name: str | None = None) -> Image.Image:
        """The photo with everything under ``mask`` (H, W) filled; what lies outside is untouched to the bit.

        ``name`` is the photo's file name, by which a folder of ready images is searched.
        """
        image = open_image(image)
        mask = checked(mask, *image.size)
        if self._folder is not None:
            return self._ready(image, name)
        kept = None if self.cache is None else self.cache / f"{self.digest(image, mask)}.png"
        if kept is not None and kept.is_file():
            return open_image(kept)
        pixels = np.asarray(image)
        assert self._fill is not None
        filled = np.where(mask[..., None], self._fill(pixels, mask), pixels).astype(np.uint8)
        result = Image.fromarray(filled)
        if kept is not None:
            make_folder(kept.parent, ImageError)
            with whole_file(kept, ImageError) as temporary:
                result.save(temporary, format="PNG")
        return result

    def digest(self, image: Image.Image, mask: Mask) -> str:
        """What a result depends on, as a name."""
        parts = (self.backend.encode(), repr(image.size).encode(), image.tobytes(), np.packbits(mask).tobytes())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]

    def _ready(self, image: Image.Image, name: str | None) -> Image.Image:
        assert self._folder is not None
        if name is None:
            raise ImageError("Ready inpainted photos are found by their file name; give the photo as a path.")
        stem = Path(name).stem
        found = sorted(p for p in self._folder.iterdir() if p.stem == stem)
        if not found:
            raise ImageError(f"The folder '{self._folder}' has no inpainted photo named {stem}.*.")
        ready = open_image(found[0])
        if ready.size != image.size:
            raise ImageError(f"'{found[0]}' is {ready.size}, its photo {image.size}: they do not belong together.")
        return ready


def _opencv(flag: str) -> Callable[[str], Fill]:
    def make(_: str) -> Fill:
        import cv2

        method = getattr(cv2, flag)
        return lambda pixels, mask: cv2.inpaint(pixels, mask.astype(np.uint8), RADIUS, method)

    return make


def _lama(where: str) -> Fill:
    import torch

    if not Path(where).is_file():
        raise ImageError(f"There is no file '{where}' with a LaMa model.")
    try:
        network = torch.jit.load(where, map_location="cpu").eval()
    except RuntimeError as error:
        raise ImageError(f"'{where}' is no TorchScript file.") from error

    def fill(pixels: np.ndarray[Any, Any], mask: Mask) -> np.ndarray[Any, Any]:
        height, width = mask.shape
        across, down = -width % 8, -height % 8
        photo = np.pad(pixels, ((0, down), (0, across), (0, 0)), mode="symmetric").astype(np.float32) / 255
        hole = np.pad(mask, ((0, down), (0, across)), mode="symmetric").astype(np.float32)
        with torch.no_grad():
            out = network(torch.from_numpy(photo).permute(2, 0, 1)[None], torch.from_numpy(hole)[None, None])
        return (out[0].permute(1, 2, 0)[:height, :width].clamp(0, 1) * 255).round().byte().numpy()

    return fill


def _diffusers(where: str) -> Fill:
    try:
        from diffusers import AutoPipelineForInpainting  # type: ignore[import-not-found]
    except ImportError as error:
        raise ImageError("Inpainting by a pipeline needs the diffusers library: pip install diffusers.") from error
    if not Path(where).is_dir():
        raise ImageError(f"There is no folder '{where}' with an inpainting pipeline.")
    import torch

    pipeline = AutoPipelineForInpainting.from_pretrained(where, local_files_only=True)

    def fill(pixels: np.ndarray[Any, Any], mask: Mask) -> np.ndarray[Any, Any]:
        image, hole = Image.fromarray(pixels), Image.fromarray(mask.astype(np.uint8) * 255)
        generator = torch.Generator().manual_seed(0)
        out = pipeline(prompt="background", image=image, mask_image=hole, generator=generator).images[0]
        return np.asarray(out.convert("RGB").resize(image.size))

    return fill


BACKENDS: dict[str, Callable[[str], Fill]] = {
    "telea": _opencv("INPAINT_TELEA"),
    "ns": _opencv("INPAINT_NS"),
    "lama": _lama,
    "diffusers": _diffusers,
}
