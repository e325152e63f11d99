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
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import torch
from torch import Tensor

from neuronwise.data.facts import FactCase, load_facts
from neuronwise.data.photos import Captioned
from neuronwise.errors import StudyError
from neuronwise.measure.localization import Ablation, all_curves, mean_fill, shares_lost
from neuronwise.model.prompt import target_tokens
from neuronwise.model.run import Run, Target
from neuronwise.neurons import NeuronSet
from neuronwise.study.concept_photos import ConceptPhotos
from neuronwise.study.entries import each
from neuronwise.study.kind import Case
from neuronwise.study.localization.recipe import LocalizationRecipe
from neuronwise.study.store import Row
from neuronwise.study.word_neurons import word_neurons
from neuronwise.study.workspace import Workspace

Space = Workspace[LocalizationRecipe]


def cases(workspace: Space) -> list[Case]:
    """Words of captions, then facts."""
    recipe = workspace.recipe
    if not recipe.words and not recipe.facts:
        raise StudyError("This study has neither words nor facts: words and facts are both 0.")
    found = []
    for shown, photo in _words(workspace)[: recipe.words]:
        inputs = {"what": "word", "concept": shown.name, "photo": photo.id, "word": shown.word(photo)}
        found.append(Case(f"word/{shown.name}/{photo.id}", inputs))
    for number, (prompt, answer) in enumerate(_facts(workspace)[: recipe.facts]):
        found.append(Case(f"fact/{number}", {"what": "fact", "prompt": prompt, "answer": answer}))
    return found


def measure(workspace: Space, case: Case) -> list[Row]:
    """One row for each fill and method."""
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
        run, target = _asked(workspace, case.inputs["prompt"], case.inputs["answer"])
    seed = workspace.seed(case.id)
    top = min(recipe.counts[-1], workspace.model.num_neurons)
    found = word_neurons(run, target, methods, top, concept=concept, inpainted=inpainted, seed=seed)
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
    own = _asked(workspace, case.inputs["prompt"], case.inputs["answer"])[1].token_id
    asked = [_asked(workspace, *fact) for fact in _facts(workspace)]
    different = [(run, target) for run, target in asked if target.token_id != own]
    if not different:
        return {}
    drawn = workspace.random("others", case.id).sample(different, min(recipe.others, len(different)))
    ablations = [Ablation(model, run, target, fill=means, positions=recipe.positions) for run, target in drawn]
    lost = [shares_lost(ablation, ranked, recipe.counts) for ablation in ablations]
    return {name: [fmean(shares) for shares in zip(*(one[name] for one in lost), strict=True)] for name in ranked}


def _words(workspace: Space) -> list[tuple[ConceptPhotos, Captioned]]:
    """All words of captions that could be looked at, in an order drawn by the seed."""
    recipe = workspace.recipe
    if not recipe.words:
        return []
    comparing = any(method.compares for method in recipe.methods)
    found = [
        (shown, photo)
        for shown in workspace.concepts.values()
        for photo in (shown.masked if comparing else shown.photos)
    ]
    workspace.random("words").shuffle(found)
    return found


def _facts(workspace: Space) -> list[tuple[str, str]]:
    """Prompts and answers of facts whose answer's first token the model gives by itself, drawn by the seed."""
    recipe = workspace.recipe
    if not recipe.facts:
        return []
    wanted = max(recipe.facts, recipe.mean_over if "mean" in recipe.fills else 0)
    return [(prompt, answer) for prompt, answer in workspace.kept("facts", "known", lambda: _known(workspace, wanted))]


def _known(workspace: Space, wanted: int) -> list[list[str]]:
    name = workspace.recipe.fact_file
    listed: Sequence[FactCase] = load_facts(name).cases
    shuffled = workspace.random("facts").sample(list(listed), len(listed))
    found: list[list[str]] = []
    for number, case in enumerate(shuffled, 1):
        if len(found) == wanted:
            break
        fact = case.fact
        if fact.target_true and fact.image is None:
            run, target = _asked(workspace, fact.text, fact.target_true)
            with torch.no_grad():
                first = int(workspace.model.forward(run.forced_inputs(), rows=[-1])[0, -1].argmax())
            if first == target.token_id and [fact.text, fact.target_true] not in found:
                found.append([fact.text, fact.target_true])
        workspace.tell("known answers", number, len(shuffled))
    if not found:
        raise StudyError(f"The model knows none of the {len(listed)} facts of {name!r}; give others, or facts: 0.")
    return found


def _asked(workspace: Space, prompt: str, answer: str) -> tuple[Run, Target]:
    """A fact's prompt without a template, and the first token of its answer."""
    model = workspace.model
    prompted, _ = model.prepare(None, prompt, chat=False)
    run = Run.of(model, prompted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an answer of several tokens is meant to be scored at the first
        tokens = target_tokens(model.tokenizer, model.vocabulary_size, f" {answer.strip()}")
    return run, Target(tokens.token_id, 0, tokens.text, tokens.note)


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
        for prompt, answer in _facts(workspace)[:count]:
            yield _asked(workspace, prompt, answer)
