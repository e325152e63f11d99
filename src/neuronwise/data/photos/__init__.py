"""Photos with captions and annotated objects, and the forms of folders that hold them."""

from neuronwise.data.photos.load import FORMS, load_photos
from neuronwise.data.photos.photo import Captioned, Photos, SeenObject

__all__ = ["FORMS", "Captioned", "Photos", "SeenObject", "load_photos"]
