"""Photos that were dropped onto a page: checked as every photo is, kept in memory, the oldest forgotten."""

from __future__ import annotations

import io
import secrets
import threading

from PIL import Image

from neuronwise.errors import ImageError, told
from neuronwise.images.open import FORMATS, known_formats, open_image

KEPT = 24
LONGEST_SIDE = 2048


class Photos:
    """The photos of this session, by the number that the page is told."""

    def __init__(self) -> None:
        self._photos: dict[str, Image.Image] = {}
        self._lock = threading.Lock()

    def add(self, content: bytes) -> tuple[str, Image.Image]:
        """Open the bytes of a photo as ``open_image`` does; raises ``ImageError`` for anything else."""
        with told(ImageError, "The photo is damaged, or in a format that is not opened here"):
            try:
                image = open_image(Image.open(io.BytesIO(content), formats=known_formats()))
            except Image.DecompressionBombError as error:
                raise ImageError("The photo has too many pixels; make it smaller.") from error
            except OSError as error:
                raise ImageError(
                    f"This is no photo that can be opened; the formats are {', '.join(FORMATS)}."
                ) from error
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        number = secrets.token_urlsafe(9)
        with self._lock:
            self._photos[number] = image
            while len(self._photos) > KEPT:
                self._photos.pop(next(iter(self._photos)))
        return number, image

    def image(self, number: str) -> Image.Image:
        """One of them; raises ``ImageError`` for one that is not there any more."""
        with self._lock:
            if number not in self._photos:
                raise ImageError("This photo is not here any more; drop it again.")
            return self._photos[number]

    def jpeg(self, number: str) -> bytes:
        """One of them as a browser shows it."""
        stream = io.BytesIO()
        self.image(number).save(stream, "JPEG", quality=88)
        return stream.getvalue()
