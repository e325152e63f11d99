"""The neurons of one word over several runs: what they share is the word's, the rest the single photo's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuronwise.locate.scores import Scores
from neuronwise.model.writers import Writer
from neuronwise.neurons import NeuronSet, ScoredNeuron

AGREE = ("mean", "vote")


def joined(scored: Sequence[Scores], agree: str, top: int | None) -> NeuronSet:
    """The ``top`` neurons of several runs by their mean score, or by how many runs have them among their own best.

    ``agree`` is one of ``AGREE``.
    """
    mean = Scores(_mean(scored), _mean([scores.activations for scores in scored]))
    for scores in scored:
        mean.baselines |= scores.baselines  # the same for all runs
    usual = [scores.usual for scores in scored if scores.usual is not None]
    mean.usual = sum(usual) / len(usual) if usual else None
    record = {"agree": agree, "top": top}
    if agree == "mean":
        return mean.top(top, record)
    votes = Counter(neuron for scores in scored for neuron in scores.top(top).neurons)
    ranked = sorted(votes, key=lambda neuron: (-votes[neuron], -mean.of(neuron), neuron))[:top]
    members = (ScoredNeuron(n, votes[n] / len(scored), mean.activation(n), baseline=mean.baseline(n)) for n in ranked)
    return NeuronSet(tuple(members), record)


def _mean(tables: Sequence[Mapping[Writer, Tensor]]) -> dict[Writer, Tensor]:
    """Means over the runs, 0 where a run has none."""
    writers = dict.fromkeys(writer for table in tables for writer in table)
    return {
        writer: torch.stack([table[writer] for table in tables if writer in table]).sum(0) / len(tables)
        for writer in writers
    }
