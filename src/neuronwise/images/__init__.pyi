from neuronwise.images.open import ImageLike as ImageLike
from neuronwise.images.open import open_image as open_image
