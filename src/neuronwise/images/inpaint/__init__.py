"""Inpainting: a photo without one of its objects."""

from neuronwise.registry.lazy import face

face(__name__)
