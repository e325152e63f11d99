"""Photos with their masks, and without their objects, as a recipe wants them inpainted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from neuronwise.data.photos import Captioned
from neuronwise.errors import ImageError
from neuronwise.images import open_image
from neuronwise.images.inpaint import Inpainter
from neuronwise.images.inpaint.table import parsed
from neuronwise.images.masks import Mask, dilated
from neuronwise.study.concept_photos import object_mask
from neuronwise.study.recipe_fields import PhotoRecipe


class Pictures:
    """``masks``, by photos' ids, override the annotations; ``cache`` keeps inpainted photos."""

    def __init__(self, recipe: PhotoRecipe, cache: Path | None = None, masks: Mapping[str, Mask] | None = None) -> None:
        self.dilation, self.backend, self.cache = recipe.dilation, recipe.inpainting, cache
        self.masks = dict(masks or {})

    @property
    def ready_made(self) -> bool:
        """Whether inpainted photos are ready-made, so that no mask is needed."""
        return parsed(self.backend)[0].ready

    @cached_property
    def _inpainter(self) -> Inpainter:
        return Inpainter(self.backend, cache=self.cache)

    def known(self, photo: Captioned, concept: str) -> bool:
        """Whether the concept can be taken out of the photo."""
        try:
            if self.ready_made:
                self.inpainted(photo, concept)
            else:
                self.mask(photo, concept)
        except ImageError:
            return False
        return True

    def mask(self, photo: Captioned, concept: str) -> Mask:
        """(H, W) of booleans: where the concept is on a photo, not dilated; raises ``ImageError`` where not known."""
        return self.masks[photo.id] if photo.id in self.masks else object_mask(photo, concept)

    def hole(self, photo: Captioned, concept: str) -> Mask:
        """The dilated mask: what is filled."""
        return dilated(self.mask(photo, concept), self.dilation)

    def inpainted(self, photo: Captioned, concept: str) -> Image.Image:
        """The photo without the concept: its dilated mask filled by the recipe's inpainting, or a ready-made one."""
        image = open_image(photo.path)
        mask = np.ones((image.height, image.width), bool) if self.ready_made else self.hole(photo, concept)
        return self._inpainter(image, mask, name=photo.path.name)
