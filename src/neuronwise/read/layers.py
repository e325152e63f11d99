"""In which layers the neurons of a set lie."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from neuronwise.neurons import NeuronSet

if TYPE_CHECKING:
    from neuronwise.model import Model


def layer_histogram(model: Model, neurons: NeuronSet) -> list[int]:
    """The number of the set's neurons in each layer, ``num_layers`` numbers."""
    counts = Counter(neuron.layer for neuron in neurons.neurons)
    return [counts.get(layer, 0) for layer in range(model.num_layers)]
