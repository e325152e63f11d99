"""Models: loading them, their feed-forward blocks as neurons, and recorded runs."""

from neuronwise.model.blocks import Block
from neuronwise.model.concepts import Concept, Occurrence
from neuronwise.model.load import load
from neuronwise.model.model import Model
from neuronwise.model.run import Run, Target

__all__ = ["Block", "Concept", "Model", "Occurrence", "Run", "Target", "load"]
