"""Models: loading them, their feed-forward blocks as neurons, and recorded runs."""

from neuronwise.registry.lazy import face

face(__name__)
