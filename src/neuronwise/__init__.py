"""neuronwise: the neurons in which a transformer keeps a piece of knowledge."""

from __future__ import annotations

from neuronwise._version import __version__
from neuronwise.data.benchmarks import load_facts
from neuronwise.data.facts import Fact
from neuronwise.edit import Edit, Statistics, alphaedit, fine, load_edit, memit, pmet, rome, swap
from neuronwise.errors import NeuronwiseError
from neuronwise.intervene import suppress
from neuronwise.locate import locate
from neuronwise.model import Model, Run, load
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron
from neuronwise.read import decode, find, heatmap

__all__ = [
    "Edit", "Fact", "Model", "Neuron", "NeuronSet", "NeuronwiseError", "Run", "ScoredNeuron", "Statistics",
    "__version__", "alphaedit", "decode", "find", "fine", "heatmap", "load", "load_edit", "load_facts", "locate",
    "memit", "pmet", "rome", "suppress", "swap",
]  # fmt: skip
