"""Properties of a concept's neurons ([MMN] §4, [NAM]): what they mean, what moves them, what depends on them, where."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from neuronwise.errors import ImageError, MethodError
from neuronwise.intervene import perturb
from neuronwise.neurons import Neuron, NeuronSet
from neuronwise.read.photo_map import PhotoMap

if TYPE_CHECKING:
    from neuronwise.images.masks import Mask
    from neuronwise.model import Model, Run
    from neuronwise.model.prompt import Inputs
    from neuronwise.model.run import Target

KAPPAS = tuple(percent / 100 for percent in range(10, 50, 5))  # [MMN]: 10 % to 45 %
Sets = Sequence[Iterable[Neuron]]


def says(decoded: Sequence[Sequence[str]], words: Iterable[str]) -> float:
    """The share of neurons with one of ``words`` among their top tokens, singular or plural, in any case (ours)."""
    from textblob.en.inflect import pluralize, singularize  # type: ignore[import-untyped]

    named = [word.strip().lower() for word in words]
    forms = {form for word in named for form in (word, singularize(word), pluralize(word))}
    return sum(any(token.strip().lower() in forms for token in tokens) for tokens in decoded) / len(decoded)


def token_text(tokens: Iterable[str]) -> str:
    """Decoded tokens as one text: stripped, each once, joined by spaces."""
    return " ".join(dict.fromkeys(word for word in map(str.strip, tokens) if _readable(word)))


def overlap(before: Iterable[Neuron], after: Iterable[Neuron]) -> float:
    """The share of ``before`` that is also in ``after``: region invariance, for the top K of a photo and of the same
    photo with its tokens shuffled ([MMN] §4.4)."""
    first, second = set(before), set(after)
    if not first:
        raise MethodError("The overlap of no neurons is not defined.")
    return len(first & second) / len(first)


def common(sets: Sets) -> float:
    """The share of the top K that all photos of one concept share ([MMN] §4.4, there for ten photos).

    Of the smallest set, where they differ in size (our choice).
    """
    listed = [set(one) for one in sets]
    if len(listed) < 2 or not all(listed):
        raise MethodError("Cross-image invariance needs the neurons of two photos or more.")
    return len(set.intersection(*listed)) / min(map(len, listed))


def pairwise(sets: Sets) -> float:
    """The mean over pairs of photos of the neurons that both have, as a share of the smaller set (ours)."""
    listed = [set(one) for one in sets]
    if len(listed) < 2 or not all(listed):
        raise MethodError("Cross-image invariance needs the neurons of two photos or more.")
    pairs = list(itertools.combinations(listed, 2))
    return sum(len(a & b) / min(len(a), len(b)) for a, b in pairs) / len(pairs)


def exclusive(concepts: Mapping[str, Iterable[Neuron]]) -> dict[str, float]:
    """For each concept the share of its neurons that no other concept has (specificity, [MMN] §4.4)."""
    sets = _two_or_more(concepts)
    found = {}
    for name, own in sets.items():
        others = set().union(*(other for key, other in sets.items() if key != name))
        found[name] = len(own - others) / len(own)
    return found


def crucial_elsewhere(concepts: Mapping[str, Sets]) -> dict[str, dict[Neuron, float]]:
    """For each concept and each neuron in the top K of any of its photos: how probable it is that the neuron is
    crucial for another concept.

    That probability is, over the other concepts, the mean share of their photos whose top K hold the neuron, so that
    a concept with many photos weighs no more than one with few (our reading of [MMN] §4.4: "crucial" = in the top K).
    """
    counts: dict[str, dict[Neuron, float]] = {}
    for name, sets in concepts.items():
        shares: dict[Neuron, float] = {}
        listed = [set(one) for one in sets]
        for one in listed:
            for neuron in one:
                shares[neuron] = shares.get(neuron, 0.0) + 1 / len(listed)
        counts[name] = shares
    _two_or_more(counts)
    return {
        name: {
            neuron: sum(counts[other].get(neuron, 0.0) for other in counts if other != name) / (len(counts) - 1)
            for neuron in sorted(own)
        }
        for name, own in counts.items()
    }


def specific(probabilities: Mapping[Neuron, float], kappa: float) -> float:
    """The share of a concept's neurons that are crucial for other concepts with probability below ``kappa``."""
    if not probabilities:
        raise MethodError("The specificity of no neurons is not defined.")
    return sum(probability < kappa for probability in probabilities.values()) / len(probabilities)


@dataclass(frozen=True)
class NoiseEffect:
    """What noise of ``sigma`` on the first ``count`` neurons did to a word.

    ``drop``: log p before − after (nats), with the output up to the word forced; ``first``: whether the word's token
    is still the model's first choice there.
    """

    sigma: float
    count: int
    drop: float
    first: bool


def noise_effects(
    model: Model, run: Run, target: Target, neurons: NeuronSet, cells: Iterable[tuple[float, int]], *, seed: int = 0
) -> list[NoiseEffect]:
    """The causal effect of noise on value vectors, v ← v + σ·N(0, 1) ([MMN] §4.5), for each cell (σ, K).

    The noise acts at all positions, those of the image's tokens included, as a change of the weights would. The same
    seed draws the same noise for every σ.
    """
    inputs = run.forced_inputs(target.position)
    with torch.no_grad():
        before = _log_probabilities(model, inputs)
        found = []
        for sigma, count in cells:
            with perturb(model, neurons[:count], sigma, seed=seed):
                after = _log_probabilities(model, inputs)
            drop = float(before[target.token_id] - after[target.token_id])
            found.append(NoiseEffect(sigma, count, drop, int(after.argmax()) == target.token_id))
    return found


def value_scale(model: Model) -> float:
    """The standard deviation of all entries of all value vectors: a unit for noise that fits any model."""
    squares = total = count = 0.0
    for writer in model.writers:
        entries = writer.vectors.float()
        squares, total = squares + float(entries.square().sum()), total + float(entries.sum())
        count += entries.numel()
    return float(np.sqrt(max(0.0, squares / count - (total / count) ** 2)))


@dataclass(frozen=True)
class HeatFit:
    """How well a heatmap's hottest part covers an object.

    ``iou``: intersection over union of the two masks; ``chance``: what as many pixels scattered blindly would reach;
    ``pointing``: whether the hottest pixel is on the object; ``object_share``: of the part that the model saw.
    """

    iou: float
    chance: float
    pointing: bool
    object_share: float


def heat_fit(heat: PhotoMap, mask: Mask, percentile: float = 95.0) -> HeatFit:
    """The heat's mask, values over its percentile ([MMN] §4.2, [SCH]), against the object's mask (H, W).

    Only the part of the photo that the model saw counts. Chance is a·b / (a + b − a·b) for masks that take the shares
    a and b of it. Raises ``ImageError`` for a mask of another size or one outside of that part.
    """
    values = heat.image()
    if mask.shape != values.shape:
        raise ImageError(f"The mask is {mask.shape[1]} × {mask.shape[0]}, the photo {heat.photo.width} × "
                         f"{heat.photo.height}.")  # fmt: skip
    seen = ~np.isnan(values)
    hot, there = heat.mask(percentile)[seen], mask[seen]
    if not there.any():
        raise ImageError("The object is outside of the part of the photo that the model sees.")
    a, b = float(hot.mean()), float(there.mean())
    hottest = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return HeatFit(_iou(hot, there), a * b / (a + b - a * b), bool(mask[hottest]), b)


def _readable(word: str) -> bool:
    return bool(word) and word.isprintable() and "\ufffd" not in word


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


def _log_probabilities(model: Model, inputs: Inputs) -> torch.Tensor:
    return model.forward(inputs, rows=[-1])[0, -1].float().log_softmax(-1).cpu()


def _two_or_more(concepts: Mapping[str, Iterable[Neuron]]) -> dict[str, set[Neuron]]:
    sets = {name: set(own) for name, own in concepts.items()}
    if len(sets) < 2 or not all(sets.values()):
        raise MethodError("Specificity compares the neurons of two concepts or more.")
    return sets
