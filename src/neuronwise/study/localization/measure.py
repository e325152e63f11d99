"""How well each method finds what a word depends on: deletion and insertion curves of words of captions and of facts.

A case is one word: of a caption, the word that names a concept; of a text, the first token of a known fact's answer
(facts that the model itself does not answer are left out). One row a method and ``fill``, with the columns

- ``what``: "word" or "fact"; ``concept``, ``photo`` (its id), ``word``, or ``prompt`` and ``answer``
- ``method``; ``fill``: what a neuron that is taken away becomes, "zero" or "mean" (its mean over the positions that
  predict the words of captions, or the answers of facts, of the study); ``positions``: where it is taken away
- ``found``: how many neurons the method ranked (at most the largest of ``counts``)
- ``before``: log p of the word in nats; ``none``: with every feed-forward neuron taken away
- ``counts``, ``deletion``, ``insertion``: lists, log p without the first K neurons, and with only these kept
- ``deletion_area``: mean over log K of before − deletion; ``insertion_area``: of insertion − none (nats)
- ``others``: where the recipe asks, a list: the share of their answers' probability that other facts lose without the
  first K neurons
- ``seconds_finding``: CPU seconds of the method

For the rows of maps over photos see ``maps``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean

from torch import Tensor

from neuronwise.data.photos import Captioned
from neuronwise.errors import StudyError
from neuronwise.measure.localization import Ablation, all_curves, mean_fill, shares_lost
from neuronwise.model.run import Run, Target
from neuronwise.neurons import NeuronSet
from neuronwise.study.concept_photos import ConceptPhotos
from neuronwise.study.entries import each
from neuronwise.study.kind import Case
from neuronwise.study.localization.maps import map_cases, measure_maps
from neuronwise.study.localization.recipe import LocalizationRecipe
from neuronwise.study.localization.specific import specific_sets, studied_facts
from neuronwise.study.store import Row
from neuronwise.study.word_cases import asked, words_said
from neuronwise.study.word_neurons import word_neurons
from neuronwise.study.workspace import Workspace

Space = Workspace[LocalizationRecipe]


def cases(workspace: Space) -> list[Case]:
    """Words of captions, then facts."""
    recipe = workspace.recipe
    if not recipe.words and not recipe.facts and not recipe.maps:
        raise StudyError("This study has no words, facts or maps: all three are 0.")
    found = []
    for shown, photo in _words(workspace)[: recipe.words]:
        inputs = {"what": "word", "concept": shown.name, "photo": photo.id, "word": shown.word(photo)}
        found.append(Case(f"word/{shown.name}/{photo.id}", inputs))
    for number, (prompt, answer) in enumerate(studied_facts(workspace)[: recipe.facts]):
        found.append(Case(f"fact/{number}", {"what": "fact", "prompt": prompt, "answer": answer}))
    return found + map_cases(workspace)


def measure(workspace: Space, case: Case) -> list[Row]:
    """One row for each fill and method, or for each map."""
    if case.inputs["what"] == "map":
        return measure_maps(workspace, case)
    recipe = workspace.recipe
    methods = each(recipe.methods)
    concept, inpainted = None, None
    if case.inputs["what"] == "word":
        photo = workspace.by_id[case.inputs["photo"]]
        concept = case.inputs["word"]
        run = workspace.run(photo)
        target = run.target(concept)
        if any(method.compares for method in methods):
            inpainted = workspace.inpainted(photo, case.inputs["concept"])
    else:
        run, target = asked(workspace, case.inputs["prompt"], case.inputs["answer"])
    seed = workspace.seed(case.id)
    top = min(recipe.counts[-1], workspace.model.num_neurons)
    found = word_neurons(run, target, methods, top, concept=concept, inpainted=inpainted, seed=seed)
    if recipe.weights and "prompt" in case.inputs:
        found |= specific_sets(workspace, run, target, top)
    rows: list[Row] = []
    for fill in recipe.fills:
        means = _means(workspace, case.inputs["what"]) if fill == "mean" else None
        ablation = Ablation(workspace.model, run, target, fill=means, positions=recipe.positions)
        ranked = {name: one.neurons for name, one in found.items()}
        measured = all_curves(ablation, ranked, recipe.counts)
        lost = _lost_by_others(workspace, case, ranked, means) if "prompt" in case.inputs else {}
        rows += [
            {
                "method": name,
                "fill": fill,
                "positions": recipe.positions,
                "found": one.found,
                "before": one.before,
                "none": one.none,
                "counts": list(one.counts),
                "deletion": list(one.deletion),
                "insertion": list(one.insertion),
                "deletion_area": one.deletion_area,
                "insertion_area": one.insertion_area,
                **({"others": lost[name]} if name in lost else {}),
                "seconds_finding": found[name].seconds,
            }
            for name, one in measured.items()
        ]
    return rows


def _lost_by_others(
    workspace: Space, case: Case, ranked: Mapping[str, NeuronSet], means: dict[str, Tensor] | None
) -> dict[str, list[float]]:
    """For each method and count the share of their answers' probability that other facts lose, mean over them."""
    recipe, model = workspace.recipe, workspace.model
    if recipe.others is None:
        return {}
    own = asked(workspace, case.inputs["prompt"], case.inputs["answer"])[1].token_id
    known = [asked(workspace, *fact) for fact in studied_facts(workspace)]
    different = [(run, target) for run, target in known if target.token_id != own]
    if not different:
        return {}
    drawn = workspace.random("others", case.id).sample(different, min(recipe.others, len(different)))
    ablations = [Ablation(model, run, target, fill=means, positions=recipe.positions) for run, target in drawn]
    lost = [shares_lost(ablation, ranked, recipe.counts) for ablation in ablations]
    return {name: [fmean(shares) for shares in zip(*(one[name] for one in lost), strict=True)] for name in ranked}


def _words(workspace: Space) -> list[tuple[ConceptPhotos, Captioned]]:
    recipe = workspace.recipe
    return words_said(workspace, any(method.compares for method in recipe.methods)) if recipe.words else []


def _means(workspace: Space, what: str) -> dict[str, Tensor]:
    """Means over the first words, or facts, of the study; the same in every process, so they are not kept on disk."""
    return workspace.memo(("means", what), lambda: mean_fill(workspace.model, _examples(workspace, what)))


def _examples(workspace: Space, what: str) -> Iterator[tuple[Run, Target]]:
    count = workspace.recipe.mean_over
    if what == "word":
        for shown, photo in _words(workspace)[:count]:
            run = workspace.run(photo)
            yield run, run.target(shown.word(photo))
    else:
        for prompt, answer in studied_facts(workspace)[:count]:
            yield asked(workspace, prompt, answer)
