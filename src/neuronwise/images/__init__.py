"""Opening photos, whatever their form."""

from neuronwise.images.open import ImageLike, open_image

__all__ = ["ImageLike", "open_image"]
