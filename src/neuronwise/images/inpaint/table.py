"""The table of inpaintings, which loads no library: names, how each is written, and what makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from neuronwise.errors import ImageError
from neuronwise.registry import Registry

if TYPE_CHECKING:
    from PIL import Image

    from neuronwise.images.masks import Mask

# RGB photo, mask (H, W), the photo's file name → RGB photo of the same size
Fill: TypeAlias = "Callable[[Image.Image, Mask, str | None], Image.Image]"


@dataclass(frozen=True)
class Inpainting:
    """One way of inpainting.

    ``usage`` is how a user writes it: its name, or "name:WHERE" when it needs a file or folder. ``make(where)`` opens
    what is needed and returns the function that fills; raises ``ImageError``. ``ready`` ones return finished photos,
    taken as they are and without a mask; of all others only the pixels under the mask are used.
    """

    usage: str
    make: Callable[[str], Fill]
    ready: bool = False


INPAINTERS: Registry[Inpainting] = Registry(
    "inpainting",
    {
        "telea": "neuronwise.images.inpaint.opencv:TELEA",
        "ns": "neuronwise.images.inpaint.opencv:NS",
        "lama": "neuronwise.images.inpaint.lama:LAMA",
        "diffusers": "neuronwise.images.inpaint.diffusers:DIFFUSERS",
        "folder": "neuronwise.images.inpaint.folder:FOLDER",
    },
    kind="neuronwise.images.inpaint.table:Inpainting",
    group="neuronwise.inpainters",
    error=ImageError,
)


def parsed(backend: str) -> tuple[Inpainting, str]:
    """The inpainting that "telea" or "lama:FILE.pt" names, and its file or folder; raises ``ImageError``."""
    name, _, where = backend.partition(":")
    if name not in INPAINTERS or bool(where) != (":" in INPAINTERS[name].usage):
        usages = ", ".join(one.usage for one in INPAINTERS.values())
        raise ImageError(f"There is no inpainting {backend!r}; write one of {usages}.")
    return INPAINTERS[name], where
