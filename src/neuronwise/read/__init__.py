"""Reading neurons: the tokens they write, where in the image they fire, in which layers they lie."""

from neuronwise.read.decode import decode, decode_all
from neuronwise.read.finding import Finding, FoundConcept, find
from neuronwise.read.heatmap import Heatmap, heatmap, heatmaps
from neuronwise.read.layers import layer_histogram

__all__ = [
    "Finding", "FoundConcept", "Heatmap", "decode", "decode_all", "find", "heatmap", "heatmaps", "layer_histogram",
]  # fmt: skip
