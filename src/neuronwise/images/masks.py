"""Masks of objects: from COCO's annotations, from an image file, or from a box; (H, W) of booleans, True inside."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from neuronwise.errors import ImageError, reason
from neuronwise.images.open import open_image

Mask: TypeAlias = "NDArray[np.bool_]"
SHADES = 0.25  # the largest share of a drawn mask that may be neither dark nor bright (soft edges are)


def coco_mask(segmentation: object, width: int, height: int) -> Mask:
    """The mask (height, width) of one COCO annotation: polygons, or a run-length code with a list or string of counts.

    Drawn by pycocotools, so it equals COCO's own; what would crash it, or make it read memory that is not its own, is
    refused before: numbers that are not finite, points farther from the photo than its own size, a code of another
    size or length. Raises ``ImageError`` for these, for anything else, and for a mask that is empty.
    """
    from pycocotools import mask

    coco: Any = mask  # its types are narrower than what it takes
    try:
        if isinstance(segmentation, list):
            polygons = [_polygon(points, width, height) for points in segmentation]
            if not polygons:
                raise ValueError("it is empty")
            rough = coco.merge(coco.frPyObjects(polygons, height, width))
        else:
            runs = {"size": [height, width], "counts": _runs(segmentation, width, height)}
            rough = coco.frPyObjects(runs, height, width)
        drawn = coco.decode(rough).astype(bool)
    except Exception as error:  # pycocotools raises plain exceptions
        raise ImageError(f"This segmentation is neither polygons nor a run-length code: {reason(error)}.") from error
    return checked(drawn, width, height)


def _polygon(points: object, width: int, height: int) -> list[float]:
    """x, y, x, y, …; raises ``ValueError`` for what is no polygon near the photo."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        raise ValueError("a polygon is a list of three points or more: x, y, x, y, …")
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in points):
        raise ValueError("a polygon holds something else than numbers")
    for name, values, size in (("x", points[::2], width), ("y", points[1::2], height)):
        far = next((one for one in values if not -size <= one <= 2 * size), None)  # NaN is not between either
        if far is not None:
            raise ValueError(f"{name} = {far:g} is far outside the photo, which is {width} × {height}")
    return [float(one) for one in points]


def _runs(code: Any, width: int, height: int) -> list[int]:
    """Lengths of runs outside and inside in turn, by columns; raises ``ValueError`` unless they fill the photo."""
    if not isinstance(code, dict) or not {"size", "counts"} <= code.keys():
        raise ValueError("a run-length code is an object with size and counts")
    if list(code["size"]) != [height, width]:
        theirs = " × ".join(f"{side!r:.20}" for side in list(code["size"])[::-1])
        raise ValueError(f"it is {theirs}, the photo {width} × {height}")
    counts = code["counts"]
    if isinstance(counts, str | bytes):
        counts = _read_runs(counts.encode() if isinstance(counts, str) else counts)
    if not isinstance(counts, list) or not all(
        isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in counts
    ):
        raise ValueError("its counts are neither a text nor a list of whole numbers from 0")
    if sum(counts) != width * height:
        raise ValueError(f"its counts cover {sum(counts)} pixels, the photo has {width * height}")
    return counts


def _read_runs(packed: bytes) -> list[int]:
    """COCO's text form: five bits of a number in each character, from the third on less the last but one."""
    counts: list[int] = []
    value = shift = 0
    for byte in packed:
        bits = byte - 48
        if not 0 <= bits < 64:
            raise ValueError("its counts hold characters of another form")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its counts end in the middle of a number")
    return counts


def merged(masks: Sequence[Mask]) -> Mask:
    """The union of masks; raises ``ImageError`` without any."""
    if not masks:
        raise ImageError("There is no mask to merge.")
    return np.logical_or.reduce(masks)


def box_mask(box: Sequence[float], width: int, height: int) -> Mask:
    """The mask of a box (x, y, width, height) in pixels; raises ``ImageError`` for one beyond the photo's edges."""
    numbers = isinstance(box, Sequence) and all(isinstance(one, int | float) for one in box)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not numbers or len(box) != 4 or not all(map(math.isfinite, box)):
        raise ImageError(f"{box!r} is not a box; give x, y, width, height in pixels.")
    x, y, across, down = box
    if min(x, y) <= -1 or x + across >= width + 1 or y + down >= height + 1:  # a pixel is left to rounding
        given = ", ".join(f"{one:g}" for one in box)
        raise ImageError(f"The box {given} reaches outside the photo, which is {width} × {height}.")
    mask = np.zeros((height, width), bool)
    left, top = max(0, round(x)), max(0, round(y))
    mask[top : max(0, round(y + down)), left : max(0, round(x + across))] = True
    return checked(mask, width, height)


def file_mask(path: str | os.PathLike[str], width: int, height: int) -> Mask:
    """The mask drawn in an image file: True where it is brighter than half.

    Raises ``ImageError`` for a picture with shades in more than ``SHADES`` of it: most likely a photo.
    """
    gray = np.asarray(open_image(path).convert("L"))
    if ((gray > 63) & (gray < 192)).mean() > SHADES:
        raise ImageError(f"'{path}' is a picture, not a mask; a mask is white where the object is and black elsewhere.")
    return checked(gray > 127, width, height)


def dilated(mask: Mask, pixels: int) -> Mask:
    """The mask grown by ``pixels`` in every direction (by a disc), to cover an object's edge and shadow."""
    if pixels < 0:
        raise ImageError(f"A mask cannot grow by {pixels} pixels.")
    if pixels == 0:
        return mask
    import cv2

    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
    return cv2.dilate(mask.astype(np.uint8), disc).astype(bool)


def checked(mask: Mask, width: int, height: int) -> Mask:
    """The mask itself; raises ``ImageError`` when it has another size than the photo, or is empty."""
    if mask.shape != (height, width):
        raise ImageError(f"The mask is {mask.shape[1]} × {mask.shape[0]}, the photo {width} × {height}.")
    if not mask.any():
        raise ImageError("The mask is empty or lies outside the photo.")
    return mask


def shown(image: Image.Image, mask: Mask) -> Image.Image:
    """The photo with the mask drawn over it in red."""
    pixels = np.asarray(image).astype(np.float32)
    pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array([255.0, 0.0, 0.0])
    return Image.fromarray(pixels.astype(np.uint8))
