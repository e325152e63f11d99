"""Neurons of one fact's answer that other facts' answers do not need, by each of several weights."""

from __future__ import annotations

import time

from neuronwise.errors import StudyError
from neuronwise.locate.scores import Scores
from neuronwise.locate.specific import less, mean_size
from neuronwise.model.run import Run, Target
from neuronwise.study.entries import each
from neuronwise.study.localization.recipe import LocalizationRecipe
from neuronwise.study.word_cases import asked, facts_known
from neuronwise.study.word_neurons import TimedNeurons, WordMethod
from neuronwise.study.workspace import Workspace

Space = Workspace[LocalizationRecipe]


def specific_sets(workspace: Space, run: Run, target: Target, top: int) -> dict[str, TimedNeurons]:
    """For each method that scores every neuron and each weight: ``specific_neurons`` beside the reference facts.

    What the reference facts score is the same for all facts and not counted as time.
    """
    found = {}
    for method in each(workspace.recipe.methods):
        locating = method.locating
        if not locating.scores_all or method.compares or locating.control:
            continue
        shared = workspace.memo(("shared", method.called), lambda method=method: _shared(workspace, method))
        start = time.process_time()
        own = locating.score(workspace.model, run, [target], method.options)[0]
        for weight in workspace.recipe.weights:
            neurons = less(own, shared, weight).top(top)
            found[f"{method.called}, weight {weight:g}"] = TimedNeurons(neurons, time.process_time() - start)
    return found


def studied_facts(workspace: Space) -> list[tuple[str, str]]:
    """The facts of the study: those that are cases, and those that means are taken over."""
    recipe = workspace.recipe
    wanted = max(recipe.facts, recipe.mean_over if "mean" in recipe.fills else 0)
    beside = recipe.reference if recipe.weights else 0
    return facts_known(workspace, recipe.fact_file, wanted + beside)[:wanted] if recipe.facts else []


def _shared(workspace: Space, method: WordMethod) -> Scores:
    """The mean size of a method's scores over known facts that are none of those studied."""
    recipe, studied = workspace.recipe, studied_facts(workspace)
    reference = facts_known(workspace, recipe.fact_file, len(studied) + recipe.reference)[len(studied) :]
    if not reference:
        raise StudyError(f"The model knows {len(studied)} of the facts, and weights need others; give fewer facts.")
    pairs = (asked(workspace, prompt, answer) for prompt, answer in reference)
    return mean_size(
        method.locating.score(workspace.model, other, [token], method.options)[0] for other, token in pairs
    )
