"""The neurons of one word over several runs: what they share is the word's, the rest the single photo's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from neuronwise.errors import MethodError
from neuronwise.locate import describe, for_top, score_all
from neuronwise.locate.scores import Place, Scores
from neuronwise.model.run import Run
from neuronwise.neurons import NeuronSet

if TYPE_CHECKING:
    from neuronwise.model import Model

# Exact shares of the logit, over the model's other candidates: options of ``contribution`` for the neurons of one word.
SHARP: dict[str, Any] = {"contrast": 10, "normalize": True}


def locate_together(
    model: Model,
    runs: Sequence[Run],
    word: str | Sequence[str],
    *,
    method: str = "contribution",
    top: int = 100,
    agree: str = "mean",
    **options: Any,
) -> NeuronSet:
    """The ``top`` neurons for a word that all ``runs`` say (photos of one concept), by any method that scores.

    Several words, one for each run, stand for one concept that the texts name differently (man, woman).
    ``agree="mean"``: by the mean of their scores over the runs (a routed expert that a run did not use counts 0
    there). ``agree="vote"``: by the number of runs that have them among their own ``top``, equal votes by the mean
    score; the score is then votes / runs. Our choices, after the vote over images of Sato & Takagi 2025. Raises
    ``TargetError`` for a run that does not say the word, ``MethodError`` for anything unknown.
    """
    if not runs:
        raise MethodError("Give one run or more.")
    if agree not in ("mean", "vote"):
        raise MethodError(f"agree={agree!r} is unknown; choose mean or vote.")
    words = [word] * len(runs) if isinstance(word, str) else list(word)
    if len(words) != len(runs):
        raise MethodError(f"There are {len(words)} words for {len(runs)} runs; give one word, or one for each run.")
    targets = [run.target(said) for run, said in zip(runs, words, strict=True)]
    scored = [
        score_all(model, run, [target], method, **for_top(method, top, options))[0]
        for run, target in zip(runs, targets, strict=True)
    ]
    record = {**describe(model, runs[0], targets[0], method, options), "agree": agree, "top": top}
    record["texts"] = [run.text for run in runs]
    mean = _mean(scored)
    if agree == "mean":
        return mean.top(top, record)
    found = mean.top(sum(len(values) for values in mean.values.values()))  # every neuron, best mean score first
    votes: dict[Any, int] = {}
    for scores in scored:
        for neuron in scores.top(top).neurons:
            votes[neuron] = votes.get(neuron, 0) + 1
    named = [member for member in found.members if member.neuron in votes]
    named.sort(key=lambda member: -votes[member.neuron])  # stable: equal votes stay in the order of the mean
    members = tuple(type(m)(m.neuron, votes[m.neuron] / len(runs), m.activation) for m in named[:top])
    return NeuronSet(members, record)


def _mean(scored: Sequence[Scores]) -> Scores:
    """Means of scores and activations over the runs, 0 where a run has none."""
    result = Scores()
    for kind in ("values", "activations"):
        tables: list[dict[Place, torch.Tensor]] = [getattr(scores, kind) for scores in scored]
        for place in dict.fromkeys(place for table in tables for place in table):
            there = [table[place] for table in tables if place in table]
            getattr(result, kind)[place] = torch.stack(there).sum(0) / len(scored)
    return result
