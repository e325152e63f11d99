"""Opening a photo as RGB, whatever its mode; one sentence for what is not a photo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from neuronwise.errors import ImageError, told
from neuronwise.files import ordinary, whole_file

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.generic]"

# What photos come in. Pillow opens more: some of it with programs of the machine (EPS starts Ghostscript), much of it
# with decoders that hardly anyone tests.
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "PPM", "JPEG2000")
FILE = "neuronwise_file"  # in the info of an opened photo
HAIR = 0.05  # how far fractions may lie outside 0 to 1, as resampling leaves them
DIM = 32  # floats whose largest is above 1 and below this are neither fractions nor 0 to 255


def open_image(source: ImageLike) -> Image.Image:
    """Open a path, a PIL image or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as an upright RGB image.

    Transparent images are laid on white. Whole numbers up to 255 are taken as such, larger ones as 16 bits, floats up
    to 1 as fractions. An animation gives its first frame, EXIF rotation is applied. Raises ``ImageError`` for a
    missing, truncated, empty or non-image source, one in a format that is not in ``FORMATS``, and for numbers that are
    none of these.
    """
    image = _opened(source)
    file = getattr(source, "filename", None) if isinstance(source, Image.Image) else source
    if isinstance(file, (str, os.PathLike)) and os.fspath(file):
        image.info[FILE] = os.path.basename(os.fspath(file))
    return image


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write an image file in the format of its name (.png, .jpg ...), whole or not at all; raises ``ImageError``."""
    kind = format_of(path)
    with whole_file(path, ImageError) as temporary, told(ImageError, f"'{path}' cannot be written"):
        image.save(temporary, format=kind)


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that an image file is written in, by its name; raises ``ImageError`` for a name of none."""
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind is None or kind not in known_formats():
        raise ImageError(f"'{path}' does not end as an image does; write .png or .jpg.")
    return kind


def file_of(image: Image.Image) -> str | None:
    """The name of the file that an opened photo is from, without its folders; None for one that is from none."""
    return image.info.get(FILE)


def _opened(source: ImageLike) -> Image.Image:
    if isinstance(source, Image.Image):
        with told(ImageError, "The image is damaged or truncated"):  # it may still be unread
            return _to_rgb(source, "The image")
    if isinstance(source, np.ndarray):
        with told(ImageError, f"An array of {source.dtype} is not an image"):
            return _from_array(source)
    try:
        name = os.fspath(source)
    except TypeError as error:
        raise ImageError(
            f"A {type(source).__name__} is not an image; give a path, a PIL image or a NumPy array."
        ) from error
    with told(ImageError, f"The image '{name}' is damaged or truncated"):  # decoders raise errors of any kind
        try:
            with Image.open(ordinary(name), formats=known_formats()) as image:
                image.seek(0)
                image.load()
                return _to_rgb(image, f"'{name}'")
        except FileNotFoundError as error:
            raise ImageError(f"There is no file '{name}'.") from error
        except IsADirectoryError as error:
            raise ImageError(f"'{name}' is a folder; name one photo.") from error
        except UnidentifiedImageError as error:
            raise ImageError(
                f"'{name}' is not an image that can be opened; the formats are {', '.join(FORMATS)}."
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"'{name}' has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels, which may be an "
                "attack on memory; make it smaller, or if you trust it, set PIL.Image.MAX_IMAGE_PIXELS = None."
            ) from error


def known_formats() -> list[str]:
    """Those of ``FORMATS`` that this Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name} is empty.")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _from_array(np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _from_array(array: NDArray[np.generic]) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or array.size == 0:
        raise ImageError(f"An array of shape {array.shape} is not an image; give (H, W), (H, W, 3) or (H, W, 4).")
    if array.dtype != np.uint8:
        array = _to_bytes(array)
    return _to_rgb(Image.fromarray(array), "The array")


def _to_bytes(array: NDArray[np.generic]) -> NDArray[np.generic]:
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("The image holds values that are not finite.")
    low, high = float(values.min()), float(values.max())
    whole = not np.issubdtype(array.dtype, np.floating)
    if array.dtype == np.bool_ or (not whole and low >= -HAIR and high <= 1 + HAIR):
        top = 1.0
    elif low >= 0 and (high <= 255 if whole else DIM <= high <= 255):
        top = 255.0
    elif low >= 0 and 255 < high <= 65535:
        top = 65535.0
    else:
        raise ImageError(
            f"The array's values go from {low:.4g} to {high:.4g}; give whole numbers from 0 to 255 (or to 65535), or "
            "fractions from 0 to 1."
        )
    return np.clip(values / top * 255.0 + 0.5, 0, 255).astype(np.uint8)
