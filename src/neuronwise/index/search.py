"""Neurons by what an index keeps of them, and by what they write.

Of each neuron an index keeps the items with its largest activations, in their order. All others are behind those; so
are those that share the last value that is kept (a neuron that is never on has nothing but zeros), which come in no
order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronwise.answers.naming import names
from neuronwise.errors import IndexingError
from neuronwise.index.stored import Stored
from neuronwise.model import Model
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

Ints, Floats, Bools = NDArray[np.integer[Any]], NDArray[np.floating[Any]], NDArray[np.bool_]
Scored = Callable[[int], tuple[Floats, Floats]]  # layer → of each row of its arrays a score, and what decides ties


def firing_on(stored: Stored, word: str, place: str | None, lowest: bool) -> tuple[Scored, dict[str, Any]]:
    """How well each neuron tells the items that name a word, and the record of it; see ``Index.locate``."""
    named = np.array([any(names(text, word) for text in own) for own in stored.items.texts()])
    if named.all() or not named.any():
        which = f"All photos and texts of this index name {word!r}" if named.all() else "No photo or text"
        raise IndexingError(f"{which}." if named.all() else f"{which} of this index names {word!r}.")
    at, place = stored.place(place)

    def scores(layer: int) -> tuple[Floats, Floats]:
        item, known = ranked(stored, layer, at, int(lowest))
        mean, spread = stored.array(layer, "moments")[:, at, :2].T
        height = stored.array(layer, "value")[:, at, int(lowest)] - mean[:, None]
        height = np.where(named[item] & known, height * (-1 if lowest else 1), 0).max(1)
        return areas(item, known, named), np.divide(height, spread, out=np.zeros_like(height), where=spread > 0)

    return scores, {"place": place, "items": len(named), "named": int(named.sum())}


def firing_like(stored: Stored, neuron: Neuron, place: str | None) -> tuple[Scored, dict[str, Any]]:
    """How alike the items of each neuron are to those of one, and the record of it; see ``Index.similar``."""
    at, place = stored.place(place)
    row, items = stored.find(neuron)[0], len(stored.items)
    item, known = ranked(stored, neuron.layer, at, 0)
    own = rank_weights(known)[row]
    spread = np.zeros(items)
    spread[item[row][known[row]]] = own[known[row]]

    def scores(layer: int) -> tuple[Floats, Floats]:
        item, known = ranked(stored, layer, at, 0)
        return _plain(correlations(item, rank_weights(known), spread))

    return scores, {"place": place, "items": items}


def standing_out(stored: Stored, place: str | None, lowest: bool) -> tuple[Scored, dict[str, Any]]:
    """How far each neuron's examples lie above its mean, and the record of it; see ``Index.selective``."""
    at, place = stored.place(place)
    there = sum(kind == "photo" or place != "image" for kind in stored.items.kinds())

    def scores(layer: int) -> tuple[Floats, Floats]:
        values = stored.array(layer, "value")[:, at, int(lowest)]
        examples = values[:, : max(there // 2, 1)].mean(1)
        mean, spread = stored.array(layer, "moments")[:, at, :2].T
        height = (examples - mean) * (-1 if lowest else 1)
        return _plain(np.divide(height, spread, out=np.zeros_like(height), where=spread > 0))

    return scores, {"place": place, "items": there}


def writing_like(stored: Stored, model: Model, neuron: Neuron) -> Scored:
    """The cosine of each neuron's value vector with that of one."""
    own = model.blocks[neuron.layer].value_vector(neuron).float()
    return _by_writer(stored, model, lambda writer: _cosines(writer.vectors.T.float(), own))


def best(stored: Stored, scored: Scored, top: int, record: dict[str, Any], but: Neuron | None = None) -> NeuronSet:
    """The ``top`` neurons of highest score, further ties in the order of layers and rows; ``but`` is left out."""
    if top < 1:
        raise IndexingError(f"top is {top}; ask for 1 neuron or more.")
    layers = {layer: scored(layer) for layer in stored.writers}
    scores, ties = (np.concatenate([one[part] for one in layers.values()]) for part in (0, 1))
    starts = np.cumsum([0, *(len(one[0]) for one in layers.values())])
    members: list[ScoredNeuron] = []
    for place in np.lexsort((-ties, -scores))[: top + 1].tolist():
        at = int(np.searchsorted(starts, place, side="right")) - 1
        neuron = stored.neuron(list(layers)[at], int(place - starts[at]))
        if neuron != but:
            members.append(ScoredNeuron(neuron, float(scores[place])))
    return NeuronSet(tuple(members[:top]), record)


def ranked(stored: Stored, layer: int, place: int, end: int) -> tuple[Ints, Bools]:
    """(n, k) items of a layer's examples, and which of them have a place of their own in the order."""
    item, value = (stored.array(layer, name)[:, place, end] for name in ("item", "value"))
    there = item >= 0
    last = np.take_along_axis(value, there.sum(1, keepdims=True).clip(1) - 1, axis=1)
    return item, there & (value != last)


def areas(item: Ints, known: Bools, named: Bools) -> Floats:
    """(n,) the area under the ROC curve by which each neuron's items tell the ``named`` ones (items,) from the others.

    It is the chance that a named item fires it more than another one, half of it where their order is not known.
    """
    positive, negative = named[item] & known, ~named[item] & known
    all_positive, all_negative = int(named.sum()), int((~named).sum())
    won = (positive * (all_negative - negative.cumsum(1))).sum(1)  # others behind each named one
    tied = 0.5 * (all_positive - positive.sum(1)) * (all_negative - negative.sum(1))
    return (won + tied) / (all_positive * all_negative)


def rank_weights(known: Bools) -> Floats:
    """(n, k): k for the first of a neuron's examples, k - 1 for the next …, 0 where there is no order."""
    return np.where(known, np.arange(known.shape[1], 0, -1.0), 0.0)


def correlations(item: Ints, weights: Floats, own: Floats) -> Floats:
    """(n,) Pearson's correlation, over all items, of each neuron's weights (n, k) with one's ``own`` (items,)."""
    mean = weights.sum(1) / len(own)
    shared = (own[item] * weights).sum(1) / len(own) - mean * own.mean()
    spread = np.sqrt((np.square(weights).sum(1) / len(own) - mean**2).clip(0) * own.var())
    return np.divide(shared, spread, out=np.zeros(len(item)), where=spread > 0)


def _cosines(vectors: Tensor, direction: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(vectors, direction.to(vectors.device)[None], dim=1).cpu()


def _by_writer(stored: Stored, model: Model, cosines: Callable[[Writer], Tensor]) -> Scored:
    """The writers of an index are the model's, in the same order."""
    return lambda layer: _plain(np.concatenate([cosines(writer).numpy() for writer in model.blocks[layer].writers]))


def _plain(scores: Floats) -> tuple[Floats, Floats]:
    return scores, np.zeros_like(scores)
