"""Reading neurons: the tokens they write, where in the image they fire, and what of the image a word depends on."""

from neuronwise.read.decode import Effect, decode, decode_all, effects
from neuronwise.read.evidence import EVIDENCE, Evidence, evidence
from neuronwise.read.finding import Finding, FoundConcept, find
from neuronwise.read.heatmap import Heatmap, heatmap, heatmaps

__all__ = [
    "EVIDENCE", "Effect", "Evidence", "Finding", "FoundConcept", "Heatmap", "decode", "decode_all", "effects",
    "evidence", "find", "heatmap", "heatmaps",
]  # fmt: skip
