"""Which photos show a concept, by which word a caption names it, and where on the photo it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from neuronwise.answers.naming import mentions, names
from neuronwise.data.photos import Captioned
from neuronwise.data.words import COCO_SYNONYMS
from neuronwise.errors import ImageError
from neuronwise.images import open_image
from neuronwise.images.masks import Mask, coco_mask, merged


@dataclass(frozen=True)
class ConceptPhotos:
    """A concept with the photos that show it and whose caption names it, in an order drawn by the seed.

    ``words``: how each caption names it ("puppy" for dog), in the order of ``photos``. ``masked``: the photos of which
    it is known where the concept is.
    """

    name: str
    photos: tuple[Captioned, ...]
    words: tuple[str, ...]
    masked: tuple[Captioned, ...]

    def word(self, photo: Captioned) -> str:
        """How the caption of one of ``photos`` names the concept."""
        return self.words[self.photos.index(photo)]

    def only(self, name: str) -> ConceptPhotos:
        """The same concept with one of its photos, by the photo's id."""
        photo = self.photos[self.ids.index(name)]
        return replace(
            self, photos=(photo,), words=(self.word(photo),), masked=(photo,) if photo in self.masked else ()
        )

    @property
    def ids(self) -> list[str]:
        """The ids of the photos."""
        return [photo.id for photo in self.photos]


def word_for(caption: str, concept: str) -> str:
    """The first word or phrase of a caption that names a concept, as it is written there; else the concept itself."""
    return next((mention.text for mention in mentions(caption, concept)), concept)


def shows(photo: Captioned, concept: str) -> bool:
    """Whether a photo shows a concept: it is annotated, or, where nobody annotated, a reference caption names it."""
    if photo.objects is not None:
        return concept in photo.categories() or (concept not in COCO_SYNONYMS and _told(photo, concept))
    return _told(photo, concept) if photo.captions else True


def lacks(photo: Captioned, caption: str, concept: str) -> bool:
    """Whether nothing speaks for a concept on a photo: no annotation, no reference, and not the caption either."""
    return not (supported(photo, concept) or names(caption, concept))


def supported(photo: Captioned, concept: str) -> bool:
    """Whether an annotation or a reference caption has a concept (as CHAIR counts it)."""
    return concept in photo.categories() or _told(photo, concept)


def object_mask(photo: Captioned, concept: str) -> Mask:
    """Where all objects of a category are on a photo, crowds too; raises ``ImageError`` where no mask is usable."""
    width, height = open_image(photo.path).size
    found, problem = [], ""
    for seen in photo.objects or ():
        if seen.category == concept and seen.segmentation is not None:
            try:
                found.append(coco_mask(seen.segmentation, width, height))
            except ImageError as error:
                problem = f" ({error})"
    if not found:
        raise ImageError(f"Photo {photo.id} has no usable mask of {concept!r}{problem}.")
    return merged(found)


def _told(photo: Captioned, concept: str) -> bool:
    return any(names(caption, concept) for caption in photo.captions)
