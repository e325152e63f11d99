"""The neurons of one word over several runs: what they share is the word's, the rest the single photo's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuronwise.locate.scores import Place, Scores
from neuronwise.neurons import NeuronSet, ScoredNeuron


def joined(scored: Sequence[Scores], agree: str, top: int | None) -> NeuronSet:
    """The ``top`` neurons of several runs by their mean score, or by how many runs have them among their own best."""
    mean = Scores(_mean([scores.values for scores in scored]), _mean([scores.activations for scores in scored]))
    if agree == "mean":
        return mean.top(top)
    votes = Counter(neuron for scores in scored for neuron in scores.top(top).neurons)
    ranked = sorted(votes, key=lambda neuron: (-votes[neuron], -mean[neuron], neuron))[:top]
    return NeuronSet(tuple(ScoredNeuron(n, votes[n] / len(scored), mean.activation(n)) for n in ranked))


def _mean(tables: Sequence[Mapping[Place, Tensor]]) -> dict[Place, Tensor]:
    """Means over the runs, 0 where a run has none."""
    places = dict.fromkeys(place for table in tables for place in table)
    return {
        place: torch.stack([table[place] for table in tables if place in table]).sum(0) / len(tables)
        for place in places
    }
