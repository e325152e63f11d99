"""How much of a word the circuits that each method finds carry.

A case is one word of a caption, or one fact: a text whose answer's first token the model gives by itself. A node is a
neuron at a position; each method ranks them by the size of its score. One row a method and ``fill``, with the columns

- ``what``: "word" or "fact"; ``concept``, ``photo`` (its id), ``word``, or ``prompt``, ``answer`` and
  ``counterfactual``, the prompt with another subject of as many tokens (None where there is none: methods that
  compare two runs are left out)
- ``method``; ``fill``: what a neuron that is not kept becomes, "mean" (its baseline over texts that the model writes
  itself), "zero", or "twin" (what it is at the same position of the photo without the object, or of the
  counterfactual prompt: Mueller et al. 2025, arXiv 2504.13151); left out where there is no twin
- ``whole``, ``nothing``: the word's logit less its alternatives', as it is and with no neuron kept
- ``nodes``: how many there are; ``counts``, ``kept``, ``left``: lists, that logit with the first K nodes alone, and
  without them
- ``seconds_finding``: CPU seconds of the method
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from neuronwise.data.facts import Fact, load_facts
from neuronwise.errors import StudyError
from neuronwise.images import ImageLike
from neuronwise.locate.baseline import Baseline
from neuronwise.locate.contrast import contrasted
from neuronwise.locate.positions import rows_of
from neuronwise.locate.twin import twin_of
from neuronwise.measure.circuits import Grid, Kept, circuit_curves
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Writer
from neuronwise.study.circuits.recipe import CircuitsRecipe
from neuronwise.study.entries import Options, each, name_of
from neuronwise.study.kind import Case
from neuronwise.study.store import Row
from neuronwise.study.word_cases import asked, facts_known, words_said
from neuronwise.study.word_neurons import WordMethod
from neuronwise.study.workspace import Workspace

Space = Workspace[CircuitsRecipe]
SUBJECTS = 300  # that are tried as another subject of a fact


def cases(workspace: Space) -> list[Case]:
    """Words of captions, then facts."""
    recipe = workspace.recipe
    if not recipe.words and not recipe.facts:
        raise StudyError("This study has neither words nor facts: words and facts are both 0.")
    found = []
    if recipe.words:
        for shown, photo in words_said(workspace, _comparing(recipe))[: recipe.words]:
            inputs = {"what": "word", "concept": shown.name, "photo": photo.id, "word": shown.word(photo)}
            found.append(Case(f"word/{shown.name}/{photo.id}", inputs))
    if recipe.facts:
        known = facts_known(workspace, recipe.fact_file, recipe.facts)
        records = [case.fact for case in load_facts(recipe.fact_file).cases]
        for number, (prompt, answer) in enumerate(known[: recipe.facts]):
            other = workspace.kept("counterfactual", prompt, lambda p=prompt: _other_prompt(workspace, records, p))
            inputs = {"what": "fact", "prompt": prompt, "answer": answer, "counterfactual": other}
            found.append(Case(f"fact/{number}", inputs))
    return found


def measure(workspace: Space, case: Case) -> list[Row]:
    """One row for each fill and method."""
    recipe, model = workspace.recipe, workspace.model
    inpainted: ImageLike | None = None
    methods = each(recipe.methods)
    if case.inputs["what"] == "word":
        photo = workspace.by_id[case.inputs["photo"]]
        run = workspace.run(photo)
        target = run.target(case.inputs["word"])
        if _comparing(recipe):
            inpainted = workspace.inpainted(photo, case.inputs["concept"])
    else:
        run, target = asked(workspace, case.inputs["prompt"], case.inputs["answer"])
    fills = _fills(workspace, run, target, inpainted, case.inputs.get("counterfactual"))
    if not fills:
        return []  # a fact without a twin
    weights = contrasted(model, run, target, recipe.contrast)
    given: Options = {
        "contrast": [token for token in weights if token != target.token_id],  # found once for all
        "counterfactual": case.inputs.get("counterfactual"),
        "seed": workspace.seed(case.id),
    }
    rankings, seconds = {}, {}
    for method in methods:
        known = method.locating.options
        options = {name: value for name, value in given.items() if name in known and value is not None} | method.options
        if method.compares and inpainted is None and "counterfactual" not in options:
            continue
        start = time.process_time()
        rankings[name_of(method)] = ranking(run, target, method, options, inpainted)
        seconds[name_of(method)] = time.process_time() - start
    kept = [Kept(model, run, target, weights, fill) for fill in fills.values()]
    rows: list[Row] = []
    for fill, curves in zip(fills, circuit_curves(kept, rankings, recipe.counts), strict=True):
        for name, curve in curves.items():
            row = {
                "method": name,
                "fill": fill,
                "whole": curve.whole,
                "nothing": curve.nothing,
                "nodes": curve.total,
                "counts": list(curve.counts),
                "kept": list(curve.kept),
                "left": list(curve.left),
                "seconds_finding": seconds[name],
            }
            rows.append(row)
    return rows


def ranking(
    run: Run, target: Target, method: WordMethod, options: Options, inpainted: ImageLike | None = None
) -> Mapping[Writer, Tensor]:
    """(rows, width) for each writer: the size of a method's score of each neuron at each position, by which it ranks.

    A method that scores no positions apart ranks neurons where the word is predicted, the others have −1. A control
    is random over neurons and positions.
    """
    locating, model = method.locating, run.model
    rows = rows_of(run, target, "all")
    if locating.control:
        generator = torch.Generator().manual_seed(options["seed"])
        return {writer: torch.rand(len(rows), writer.width, generator=generator) for writer in model.writers}
    grid = {writer: torch.full((len(rows), writer.width), -1.0) for writer in model.writers}
    if locating.by_position is None:
        for writer, values in locating.score(model, run, [target], options, inpainted)[0].items():
            grid[writer][-1] = values.abs()
    else:
        for part in locating.score_positions(model, run, target, {**options, "positions": "all"}, inpainted):
            grid[part.writer][part.rows] = part.values.abs()
    return grid


def _other_prompt(workspace: Space, records: list[Fact], prompt: str) -> str | None:
    """The prompt with another fact's subject that makes as many tokens, of the same template where there is one."""
    model = workspace.model
    own = next(fact for fact in records if fact.text == prompt)
    drawn = workspace.random("subject", prompt).sample(records, len(records))
    drawn.sort(key=lambda fact: fact.prompt != own.prompt)

    def length(text: str) -> int:
        return len(model.prepare(None, text, chat=False)[0].input_ids)

    wanted = length(prompt)
    for other in drawn[:SUBJECTS]:
        text = own.prompt.replace("{}" if "{}" in own.prompt else own.subject, other.subject)
        if other.target_true != own.target_true and text != prompt and length(text) == wanted:
            return text
    return None


def _comparing(recipe: CircuitsRecipe) -> bool:
    """Whether words need a photo without the object."""
    return "twin" in recipe.fills or any(method.compares for method in recipe.methods)


def _fills(
    workspace: Space, run: Run, target: Target, inpainted: ImageLike | None, counterfactual: str | None
) -> dict[str, Grid]:
    """What neurons that are not kept become, by the recipe's fills."""
    model = workspace.model
    fills: dict[str, Grid] = {}
    for fill in workspace.recipe.fills:
        if fill == "zero":
            fills[fill] = {}
        elif fill == "mean":
            baseline = workspace.memo("baseline", lambda: Baseline.gather(model, "self"))
            fills[fill] = {writer: baseline.mean(writer) for writer in model.writers}
        elif inpainted is not None or counterfactual is not None:
            seen = twin_of(model, run, inpainted, counterfactual).rows(rows_of(run, target, "all"))
            fills[fill] = {writer: writer.fired_rows(seen).values for writer in model.writers}
    return fills
