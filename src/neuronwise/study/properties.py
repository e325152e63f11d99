"""What the neurons of a word are like ([MMN] §4, [NAM]): their meaning, what they hang on, what hangs on them, where.

A case is one photo of one concept that the caption names. Two kinds of rows, told apart by ``part``, with the columns

- ``concept``, ``photo`` (its id), ``file`` (its path below the folder of the data), ``word`` (as the caption says it)
- ``part`` "neurons": one row a method
  - ``method``; ``neurons``: the first ``K``, best first, as "L23.U8083"; ``layers``: how many of them lie in each layer
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
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from neuronwise.data.photos import Captioned
from neuronwise.measure.properties import KAPPAS
from neuronwise.read.layers import layer_histogram
from neuronwise.study.bench import Bench
from neuronwise.study.keys import MetricModels, NonNegative, Positive, Recipe, Share, once
from neuronwise.study.kind import Case, Kind, Row
from neuronwise.study.methods import as_methods, each
from neuronwise.study.property_rows import Word, heats, meaning, noise, overlaps
from neuronwise.study.word import WordMethod, checked_words, seed_for


class PropertiesRecipe(Recipe):
    """``K``: neurons of one word. ``photos``: at most so many cases, of all concepts in turn.

    ``noisy``: names of the methods whose neurons get noise (all by default). Two sweeps: ``sigmas`` at ``noise_K``
    neurons, and ``counts`` of neurons at ``noise_sigma``; captions are generated anew for ``said_sigmas`` at
    ``noise_K``. ``images``, ``kappas``: for the report's cross-image invariance and specificity.
    """

    methods: Annotated[list[WordMethod], BeforeValidator(as_methods)]
    K: Positive = 100
    photos: Positive = 60
    shuffles: Annotated[int, Field(ge=0)] = 1
    decoded_neurons: Positive = 10
    tokens: Positive = 10
    heat: Positive = 50
    noisy: list[str] | None = None
    sigma_unit: Literal["weights", "absolute"] = "weights"
    sigmas: list[NonNegative] = [0.25, 0.5, 1.0, 2.0]
    noise_K: Positive = 20
    counts: list[Positive] = [1, 5, 20, 100]
    noise_sigma: NonNegative = 1.0
    said_sigmas: list[NonNegative] = []
    images: Annotated[int, Field(ge=2)] = 10
    kappas: list[Share] = list(KAPPAS)
    metric_models: MetricModels = MetricModels()

    _methods = field_validator("methods")(checked_words)
    _once = field_validator("sigmas", "counts", "kappas")(once)

    @field_validator("noisy")
    @classmethod
    def _named(cls, noisy: list[str] | None, info: ValidationInfo) -> list[str] | None:
        called = [method.called for method in each(info.data.get("methods", []))]
        for name in noisy or ():
            if called and name not in called:
                raise ValueError(f"{name!r} names none of the methods ({', '.join(called)})")
        return noisy


def cases(bench: Bench) -> list[Case]:
    recipe = _recipe(bench)
    comparing = any(method.compares for method in recipe.methods)
    listed = [(shown, shown.masked if comparing else shown.photos) for shown in bench.concepts.values()]
    turns = max(len(photos) for _, photos in listed)
    chosen = [(shown, photos[turn]) for turn in range(turns) for shown, photos in listed if turn < len(photos)]
    return [
        Case(
            f"{shown.name}/{photo.id}",
            {"concept": shown.name, "photo": photo.id, "file": _file(bench, photo), "word": shown.word(photo)},
        )
        for shown, photo in chosen[: recipe.photos]
    ]


def measure(bench: Bench, case: Case) -> list[Row]:
    recipe = _recipe(bench)
    photo, concept, named = bench.by_id[case.inputs["photo"]], case.inputs["concept"], case.inputs["word"]
    run = bench.run(photo)
    inpainted = bench.inpainted(photo, concept) if any(method.compares for method in recipe.methods) else None
    seed = seed_for(recipe.seed, case.id)
    word = Word(bench, recipe, photo, concept, named, run, run.target(named), inpainted, seed)
    found = word.located(run, seed)
    kept, heat = overlaps(word, found), heats(word, found)
    rows: list[Row] = [
        {
            "part": "neurons",
            "method": name,
            "K": recipe.K,
            "neurons": [str(neuron) for neuron in one.neurons.neurons],
            "layers": layer_histogram(bench.model, one.neurons),
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


PROPERTIES = Kind("properties", PropertiesRecipe, cases, measure)


def _recipe(bench: Bench) -> PropertiesRecipe:
    assert isinstance(bench.recipe, PropertiesRecipe)
    return bench.recipe


def _file(bench: Bench, photo: Captioned) -> str:
    """Below the folder of the data, so that a study may be read where the photos lie elsewhere."""
    parents = [str(parent) for parent in photo.path.parents]
    root = bench.photos.source if bench.photos.source in parents else parents[0]
    return os.path.relpath(photo.path, root)
