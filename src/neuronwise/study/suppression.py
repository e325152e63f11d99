"""Which method's neurons, when they are silenced, take a concept out of captions and nothing else ([2S] §6).

A case is one concept, one method, one intervention and one K; neurons are found on some photos of the concept and
tested on those, on held-out photos of it, and on photos without it. One row a photo, with the columns

- ``concept``, ``method`` (its name in the recipe), ``intervention`` ("suppress", "mean_ablate", "scale 0.5"),
  ``K`` (null for K "found": all that the method's filter let through; for the others as many as the first filter of
  the recipe let through), ``neurons`` (how many were changed: fewer than K where a filter found fewer)
- ``photo`` (its id), ``role``: "found_on", "held_out" or "without" (a photo without the concept)
- ``before``, ``after``: the captions; ``unchanged``: whether they are the same
- ``suppressed``: of a caption that named the concept before, whether it no longer does (null for "without");
  ``named``: whether ``after`` names it; ``retained``: the share of the other nouns of ``before`` that are still named
  (null where there were none)
- ``mentions``, ``unsupported``: COCO categories that ``after`` names, and those of them that neither annotations nor
  references support; ``mentions_before``, ``unsupported_before``: the same of ``before`` (CHAIR sums them up over rows)
- ``to_before.METRIC``: ``after`` against ``before``; ``to_references.METRIC``: ``after`` against the references;
  ``to_references_before.METRIC``: ``before`` against the references (null without references); METRIC one of
  ``measure.captions.METRICS``, or "bertscore" and "mover_score"; ``clipscore``, ``clipscore_before`` (the last four
  where the recipe names their models)
- ``length``: words of ``after``; ``repeated``: the share of its word pairs that it said before (broken speech)

Kept beside them (``Study.notes``): "found", by "concept/method", {"neurons": [[layer, unit] or [layer, unit, expert],
best first], "funnel": of two_stage, as in its record, else null}; "split", by concept, {"found_on", "held_out",
"without": ids of photos}.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from neuronwise.data.photos import Captioned
from neuronwise.errors import MethodError
from neuronwise.intervene import mean_ablate, mean_activations, scale
from neuronwise.neurons import Neuron, NeuronSet
from neuronwise.study import caption_row
from neuronwise.study.bench import Bench
from neuronwise.study.kind import Case, Kind, Row
from neuronwise.study.methods import FOUND, Method, controls, each, neurons_for
from neuronwise.study.shown import Shown
from neuronwise.study.suppression_keys import Scaled, SuppressionRecipe


def cases(bench: Bench) -> list[Case]:
    recipe = _recipe(bench)
    found = []
    for concept, shown in list(bench.concepts.items()):
        if _split(bench, shown)["found_on"]:
            for method in each(recipe.methods):
                for intervention, count in itertools.product(recipe.interventions, method.K or recipe.K):
                    called = _called(intervention)
                    number = None if count == FOUND else count
                    inputs = {"concept": concept, "method": method.called, "intervention": called, "K": number}
                    found.append(Case("/".join(map(str, (concept, method.called, called, count))), inputs))
        else:
            bench.skip(concept, "no photo is left to find its neurons on (with a mask, and beside the held-out ones)")
    return found


def measure(bench: Bench, case: Case) -> list[Row]:
    recipe = _recipe(bench)
    shown = bench.concepts[case.inputs["concept"]]
    neurons = _neurons(bench, shown, case.inputs["method"], case.inputs["K"])
    chosen = next(one for one in recipe.interventions if _called(one) == case.inputs["intervention"])
    split = _split(bench, shown)
    photos = [(role, photo) for role, ids in split.items() for photo in bench.photos_of(ids)]

    def say() -> list[str]:
        with _changed(bench, neurons, chosen):
            return bench.say_all([photo for _, photo in photos])

    said = bench.said_lately((shown.name, case.inputs["intervention"], frozenset(neurons.neurons)), say)
    rows = caption_row.rows(
        [photo for _, photo in photos], [bench.captions[photo.id] for _, photo in photos], said, shown.name,
        recipe.metrics, recipe.metric_models.bert, recipe.metric_models.clip,
    )  # fmt: skip
    return [
        {"neurons": len(neurons), "photo": photo.id, "role": role, **row}
        for (role, photo), row in zip(photos, rows, strict=True)
    ]


SUPPRESSION = Kind("suppression", SuppressionRecipe, cases, measure)


def _recipe(bench: Bench) -> SuppressionRecipe:
    assert isinstance(bench.recipe, SuppressionRecipe)
    return bench.recipe


def _called(intervention: Any) -> str:
    return f"scale {intervention.scale:g}" if isinstance(intervention, Scaled) else intervention


def _split(bench: Bench, shown: Shown) -> dict[str, list[str]]:
    """Ids of photos by their role; two_stage needs photos with masks to find neurons on."""

    def split() -> dict[str, list[str]]:
        recipe = _recipe(bench)
        able = shown.masked if any(method.compares for method in recipe.methods) else shown.photos
        tested = max(1, round(recipe.held_out * len(shown.photos)))
        found_on = [photo.id for photo in able][: min(recipe.found_on, len(shown.photos) - tested)]
        return {
            "found_on": found_on,
            "held_out": [name for name in shown.ids if name not in found_on],
            "without": [photo.id for photo in bench.without(shown.name, recipe.without)],
        }

    return bench.kept("split", shown.name, split)


def _neurons(bench: Bench, shown: Shown, called: str, count: int | None) -> NeuronSet:
    """The first ``count`` neurons of a method; for None as many as the first filter found."""
    method = _method(bench, called)
    if method.chooses:
        like = method.like or next((m.called for m in each(_recipe(bench).methods) if m.filters), None)
        like = like or next(m.called for m in each(_recipe(bench).methods) if not m.chooses)
        return controls(bench, shown, _neurons(bench, shown, like, count), method.options)
    ranked = _ranked(bench, shown, method)
    if count is None and not method.filters:
        count = len(_ranked(bench, shown, _reference(bench)))
    return ranked[:count]


def _ranked(bench: Bench, shown: Shown, method: Method) -> NeuronSet:
    def find() -> dict[str, Any]:
        recipe = _recipe(bench)
        photos = bench.photos_of(_split(bench, shown)["found_on"])
        counts = [count for one in each(recipe.methods) for count in one.K or recipe.K]
        numbers = [count for count in counts if isinstance(count, int)]
        if FOUND in counts and not method.filters:
            numbers.append(len(_ranked(bench, shown, _reference(bench))))
        top = None if FOUND in counts and method.filters else max([1, *numbers])
        found = neurons_for(bench, shown, photos, method, top, recipe.null_photos)
        addresses = [[n.layer, n.unit] if n.expert is None else [n.layer, n.unit, n.expert] for n in found.neurons]
        return {"neurons": addresses, "funnel": found.record.get("funnel")}

    kept = bench.kept("found", f"{shown.name}/{method.called}", find)
    return NeuronSet.of(Neuron(*address) for address in kept["neurons"])


def _reference(bench: Bench) -> Method:
    return next(method for method in each(_recipe(bench).methods) if method.filters)


def _method(bench: Bench, called: str) -> Method:
    return next(method for method in each(_recipe(bench).methods) if method.called == called)


@contextlib.contextmanager
def _changed(bench: Bench, neurons: NeuronSet, intervention: Any) -> Iterator[None]:
    if not len(neurons):
        yield
    elif intervention == "mean_ablate":
        with mean_ablate(bench.model, neurons, _means(bench, neurons)):
            yield
    else:
        with scale(bench.model, neurons, intervention.scale if isinstance(intervention, Scaled) else 0.0):
            yield


def _means(bench: Bench, neurons: NeuronSet) -> dict[Neuron, float]:
    there: Sequence[Captioned] = [photo for photo in bench.photos if photo.id in bench.captions]
    drawn = bench.random("means").sample(there, min(_recipe(bench).means, len(there)))
    if not drawn:
        raise MethodError("There is no photo to take mean activations from.")
    return mean_activations(bench.model, neurons, [bench.run(photo) for photo in drawn])
