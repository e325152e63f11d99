"""Random controls: neurons chosen by nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model


def random(model: Model, run: Run, targets: Sequence[Target], *, seed: int = 0) -> list[Scores]:
    """Uniform over all neurons of the decoder, routed experts included ([MMN], [SCH] controls)."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Scores({writer: torch.rand(writer.width, generator=generator) for writer in model.writers}) for _ in targets
    ]


def _among(model: Model, run: Run, target: Target, among: NeuronSet, *, seed: int = 0) -> NeuronSet:
    return random_same_layers(model, among, seed=seed)


def random_same_layers(model: Model, like: NeuronSet, *, seed: int = 0) -> NeuronSet:
    """As many neurons of each layer (and expert) as ``like`` has there, drawn uniformly, none of them in ``like``.

    Raises ``MethodError`` when a layer has too few other neurons.
    """
    generator = torch.Generator().manual_seed(seed)
    taken = set(like.neurons)
    drawn = []
    for neuron in like.neurons:
        width = model.blocks[neuron.layer].width if neuron.expert is None else model.writer(neuron).width
        shuffled = torch.randperm(width, generator=generator).tolist()
        candidates = (Neuron(neuron.layer, unit, neuron.expert) for unit in shuffled)
        free = next((candidate for candidate in candidates if candidate not in taken), None)
        if free is None:
            raise MethodError(f"Layer {neuron.layer} has too few neurons for a control of {len(like)} others.")
        taken.add(free)
        drawn.append(ScoredNeuron(free, 0.0))
    return NeuronSet(tuple(drawn), {"method": "random_same_layers", "seed": seed, "like": dict(like.record)})


RANDOM = Method(
    "random",
    random,
    meaning="drawn at random as a control for {token}",
    source="Pan et al. 2024 (arXiv 2311.07470)",
    control=True,
)
RANDOM_SAME_LAYERS = Method(
    "random_same_layers",
    _among,
    meaning="drawn at random, layer by layer, as a control for {token}",
    source="Schwettmann et al. 2023 (arXiv 2308.01544)",
    needs="among",
    control=True,
)
