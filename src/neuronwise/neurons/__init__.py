"""Neurons and attention heads as values: one, and a ranked set of them with the scores that put them there."""

from neuronwise.neurons.heads import Head, Heads, HeadSet, ScoredHead, as_heads, names_heads
from neuronwise.neurons.neuron import Neuron, ScoredNeuron
from neuronwise.neurons.neuronset import Neurons, NeuronSet, as_members, as_neurons

__all__ = [
    "Head",
    "HeadSet",
    "Heads",
    "Neuron",
    "NeuronSet",
    "Neurons",
    "ScoredHead",
    "ScoredNeuron",
    "as_heads",
    "as_members",
    "as_neurons",
    "names_heads",
]
