"""Photos: opening them, masks of their objects, inpainting."""

from neuronwise.registry.lazy import face

face(__name__)
