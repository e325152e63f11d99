"""Reading neurons: the tokens they write, where in the image they fire."""

from neuronwise.read.decode import decode, decode_all
from neuronwise.read.finding import Finding, FoundConcept, find
from neuronwise.read.heatmap import Heatmap, heatmap, heatmaps

__all__ = [
    "Finding", "FoundConcept", "Heatmap", "decode", "decode_all", "find", "heatmap", "heatmaps",
]  # fmt: skip
