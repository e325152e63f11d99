"""Inpainting: a photo without one of its objects."""

from neuronwise.lazy import face

face(__name__)
