"""Photos: opening them, masks of their objects, inpainting."""

from neuronwise.lazy import face

face(__name__)
