"""Neurons of one word that others do not need: its scores, less what the same neurons score for the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch

from neuronwise.errors import MethodError
from neuronwise.locate.default import default_scores
from neuronwise.locate.locating import describe
from neuronwise.locate.methods import METHODS
from neuronwise.locate.scores import Scores
from neuronwise.model.model import Model
from neuronwise.model.modes import computes
from neuronwise.model.run import Run, Target
from neuronwise.neurons import NeuronSet

Words: TypeAlias = "Sequence[str | tuple[Run, str | Target]] | None"


@computes
def specific_neurons(
    model: Model,
    run: Run,
    concept: str | None = None,
    *,
    target: str | int | None = None,
    others: Scores | Words = None,
    weight: float = 1.0,
    method: str | None = None,
    top: int | None = 100,
    position: int | None = None,
    occurrence: int = 0,
    **options: object,
) -> NeuronSet:
    """The ``top`` neurons of a word that others do not need, by its score − ``weight`` · the others' ``mean_size``.

    ``others``: words of the same run (None: all its other nouns); pairs of a run and a word of it, or ``Target``, such
    as other facts that must stay; or their ``mean_size``, computed once for many words. ``method`` and ``options`` as
    for ``locate``, by default as for ``find``. Ours. Raises ``MethodError`` where there is no other word.

    >>> nw.specific_neurons(model, run, "dog")                       # not the bench's in the same caption
    >>> nw.specific_neurons(model, paris, target=" Paris", others=[(rome, rome.target(target=" Rome"))], weight=3)
    """
    if not 0 <= weight < math.inf:
        raise MethodError(f"weight is {weight}; give a number from 0.")
    wanted = run.target(concept, target, position, occurrence)
    if isinstance(others, Scores):
        (own,), named = _scored(model, run, [wanted], method, options), "given"
        shared = others
    else:
        pairs = _pairs(run, wanted, others)
        own, *beside = _scored(model, run, [wanted, *(t for r, t in pairs if r is run)], method, options)
        away = (_scored(model, other, [t], method, options)[0] for other, t in pairs if other is not run)
        shared, named = mean_size([*beside, *away]), [t.text for _, t in pairs]
    record = describe(model, run, wanted, method or "contribution", options)
    return less(own, shared, weight).top(top, {**record, "specific": {"weight": weight, "others": named}})


def mean_size(scored: Iterable[Scores]) -> Scores:
    """Of every neuron the mean size |score| over several words, 0 where one has none.

    Raises ``MethodError`` for no word.
    """
    total, count = Scores(), 0
    for one in scored:
        count += 1
        for writer, values in one.items():
            total[writer] = total.get(writer, torch.zeros(len(values))) + values.abs()
    if not count:
        raise MethodError("There is no other word to compare with; name others.")
    return Scores({writer: values / count for writer, values in total.items()})


def less(own: Scores, shared: Scores, weight: float) -> Scores:
    """Scores − ``weight`` · ``shared``, with the activations, baselines and shares that they had."""
    found = Scores({writer: v - weight * shared.get(writer, torch.zeros(len(v))) for writer, v in own.items()})
    found.activations, found.baselines, found.adds = own.activations, own.baselines, own.adds
    return found


def _pairs(run: Run, wanted: Target, others: Words) -> list[tuple[Run, Target]]:
    if others is None:
        targets = [run.target(concept) for concept in run.concepts]
        return [(run, one) for one in targets if (one.token_id, one.position) != (wanted.token_id, wanted.position)]
    found: list[tuple[Run, Target]] = []
    for one in others:
        where, what = (run, one) if isinstance(one, str) else one
        found.append((where, what if isinstance(what, Target) else where.target(what)))
    return found


def _scored(
    model: Model, run: Run, targets: Sequence[Target], method: str | None, options: dict[str, object]
) -> list[Scores]:
    if method is None:
        return default_scores(model, run, targets, options).scores
    return METHODS[method].score(model, run, targets, options)
