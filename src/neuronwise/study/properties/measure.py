"""What the neurons of a word are like ([MMN] §4, [NAM]): their meaning, what moves them, what depends on them, where.

A case is one photo of one concept that the caption names. Two kinds of rows, told apart by ``part``, with the columns

- ``concept``, ``photo`` (its id), ``file`` (its path below the folder of the data), ``word`` (as the caption says it)
- ``part`` "neurons": one row a method
  - ``method``; ``neurons``: the first ``K``, best first, as "L23.U8083"; ``layers``: how many of them are in each layer
  - ``shuffled_overlap``: the share of them that is found again when the image's tokens are shuffled and the same
    output is forced (region invariance; mean over ``shuffles``; null where the prompt holds no image tokens)
  - ``says_word``: of the first ``decoded_neurons``, the share that has the word, or its first token, among its top
    ``tokens`` (ours);
    ``clipscore``, ``bertscore``, ``mover_score``: semantic sensitivity, the best of these neurons (where the recipe
    names a model), with ``best_tokens``: what the best by the first of these metrics (else the first neuron) decodes to
  - ``heat_iou``, ``heat_chance``, ``heat_pointing``, ``object_share``: the mean activation of the first ``heat``
    neurons against the object's mask (null where there is no mask or no grid); ``grid`` (flat), ``grid_rows``, ``box``
  - ``seconds_finding``: CPU seconds of the method
- ``part`` "noise": one row a method, sweep and cell
  - ``method``, ``sweep`` ("sigma" or "K"), ``sigma`` (times ``unit``, the standard deviation of all value vectors'
    entries, or 1), ``unit``, ``K``
  - ``drop``: of log p of the word, nats, with the output before it forced; ``first``: whether it is still the first
    choice there; ``said``: whether a caption generated under this noise names the concept, ``text`` that caption (null
    where the recipe does not ask)

What is common to several photos or concepts (cross-image invariance, specificity) follows from the rows: the report
computes it.
"""

from __future__ import annotations

import os

from neuronwise.data.photos import Captioned
from neuronwise.study.kind import Case
from neuronwise.study.properties.parts import Word, heats, meaning, noise, overlaps
from neuronwise.study.properties.recipe import PropertiesRecipe
from neuronwise.study.store import Row
from neuronwise.study.workspace import Workspace

Space = Workspace[PropertiesRecipe]


def cases(workspace: Space) -> list[Case]:
    """One case for each word of a caption, of all concepts in turn."""
    recipe = workspace.recipe
    comparing = any(method.compares for method in recipe.methods)
    listed = [(shown, shown.masked if comparing else shown.photos) for shown in workspace.concepts.values()]
    turns = max(len(photos) for _, photos in listed)
    chosen = [(shown, photos[turn]) for turn in range(turns) for shown, photos in listed if turn < len(photos)]
    return [
        Case(
            f"{shown.name}/{photo.id}",
            {"concept": shown.name, "photo": photo.id, "file": _file(workspace, photo), "word": shown.word(photo)},
        )
        for shown, photo in chosen[: recipe.photos]
    ]


def measure(workspace: Space, case: Case) -> list[Row]:
    """One row for each method, and for each method and cell of noise."""
    recipe = workspace.recipe
    photo, concept, named = workspace.by_id[case.inputs["photo"]], case.inputs["concept"], case.inputs["word"]
    run = workspace.run(photo)
    inpainted = workspace.inpainted(photo, concept) if any(method.compares for method in recipe.methods) else None
    seed = workspace.seed(case.id)
    word = Word(workspace, photo, concept, named, run, run.target(named), inpainted, seed)
    found = word.neurons(run, seed)
    kept, heat = overlaps(word, found), heats(word, found)
    rows: list[Row] = [
        {
            "part": "neurons",
            "method": name,
            "K": recipe.K,
            "neurons": [str(neuron) for neuron in one.neurons.neurons],
            "layers": one.neurons.layers(workspace.model.num_layers),
            "shuffled_overlap": kept.get(name),
            **meaning(word, one.neurons),
            **heat[name],
            "seconds_finding": one.seconds,
        }
        for name, one in found.items()
    ]
    for name, one in found.items():
        if len(one.neurons) and (recipe.noisy is None or name in recipe.noisy):
            rows += noise(word, name, one.neurons)
    return rows


def _file(workspace: Space, photo: Captioned) -> str:
    """Below the folder of the data, so that a study may be read where the photos are elsewhere."""
    parents = [str(parent) for parent in photo.path.parents]
    root = workspace.photos.source if workspace.photos.source in parents else parents[0]
    return os.path.relpath(photo.path, root)
