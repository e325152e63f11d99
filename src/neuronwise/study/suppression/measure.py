"""Which method's neurons, when they are silenced, take a concept out of captions and nothing else ([2S] §6).

A case is one concept, one method, one intervention and one K; neurons are found on some photos of the concept and
tested on those, on held-out photos of it, and on photos without it. One row a photo, with the columns

- ``concept``, ``method`` (its name in the recipe), ``intervention`` ("suppress", "mean_ablate", "scale 0.5"),
  ``K`` (null for K "found": all that the method's filter let through; for the others as many as the first filter of
  the recipe let through), ``neurons`` (how many were changed: fewer than K where a filter found fewer)
- ``photo`` (its id), ``role``: "found_on", "held_out", "without" (a photo without the concept) or, of hallucinated
  concepts, "supported" (a photo that has it, and whose caption names it)
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
- ``length``: words of ``after``; ``repeated``: the share of its word pairs that occurred before in it (broken speech)

Kept beside them (``Study.notes``): "found", by "concept/method", {"neurons": [[layer, unit] or [layer, unit, expert],
best first], "funnel": of two_stage, as in its record, else null}; "split", by concept, {"found_on", "held_out",
"without": ids of photos}.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

from neuronwise.answers.naming import names
from neuronwise.data.photos import Captioned
from neuronwise.errors import MethodError
from neuronwise.intervene import mean_ablate, mean_activations, scale
from neuronwise.neurons import Neuron, NeuronSet
from neuronwise.study.concept_photos import ConceptPhotos, supported
from neuronwise.study.kind import Case
from neuronwise.study.methods import FOUND, Method, concept_neurons, controls, each
from neuronwise.study.store import Row
from neuronwise.study.suppression.caption_rows import caption_rows
from neuronwise.study.suppression.recipe import Scaled, SuppressionRecipe
from neuronwise.study.workspace import Workspace

Space = Workspace[SuppressionRecipe]


def cases(workspace: Space) -> list[Case]:
    """One case for each concept, method, intervention and K."""
    recipe = workspace.recipe
    found = []
    for concept, shown in list(workspace.concepts.items()):
        if _split(workspace, shown)["found_on"]:
            for method in each(recipe.methods):
                for intervention, count in itertools.product(recipe.interventions, method.K or recipe.K):
                    called = _called(intervention)
                    number = None if count == FOUND else count
                    inputs = {"concept": concept, "method": method.called, "intervention": called, "K": number}
                    found.append(Case("/".join(map(str, (concept, method.called, called, count))), inputs))
        else:
            workspace.skip(
                concept, "no photo is left to find its neurons on (with a mask, and beside the held-out ones)"
            )
    return found


def measure(workspace: Space, case: Case) -> list[Row]:
    """One row for each photo of a case."""
    recipe = workspace.recipe
    shown = workspace.concepts[case.inputs["concept"]]
    neurons = _neurons(workspace, shown, case.inputs["method"], case.inputs["K"])
    chosen = next(one for one in recipe.interventions if _called(one) == case.inputs["intervention"])
    split = _split(workspace, shown)
    photos = [(role, photo) for role, ids in split.items() for photo in workspace.photos_of(ids)]

    def say() -> list[str]:
        with _changed(workspace, neurons, chosen):
            return workspace.say_all([photo for _, photo in photos])

    said = workspace.recent((shown.name, case.inputs["intervention"], frozenset(neurons.neurons)), say)
    rows = caption_rows(
        [photo for _, photo in photos], [workspace.captions[photo.id] for _, photo in photos], said, shown.name,
        recipe.metrics, recipe.metric_models.given(),
    )  # fmt: skip
    return [
        {"neurons": len(neurons), "photo": photo.id, "role": role, **row}
        for (role, photo), row in zip(photos, rows, strict=True)
    ]


def _called(intervention: str | Scaled) -> str:
    return f"scale {intervention.scale:g}" if isinstance(intervention, Scaled) else intervention


def _split(workspace: Space, shown: ConceptPhotos) -> dict[str, list[str]]:
    """Ids of photos by their role; two_stage needs photos with masks to find neurons on."""

    def split() -> dict[str, list[str]]:
        recipe = workspace.recipe
        able = shown.masked if any(method.compares for method in recipe.methods) else shown.photos
        if recipe.hallucinated:
            there = [p for p in workspace.photos if _truly_named(workspace, p, shown.name)]
            drawn = workspace.random("supported", shown.name).sample(there, min(recipe.without, len(there)))
            beside = {"supported": [photo.id for photo in drawn]}
        else:
            beside = {"without": [photo.id for photo in workspace.without(shown.name, recipe.without)]}
        tested = max(1, round(recipe.held_out * len(shown.photos)))
        found_on = [photo.id for photo in able][: min(recipe.found_on, len(shown.photos) - tested)]
        return {
            "found_on": found_on,
            "held_out": [name for name in shown.ids if name not in found_on],
            **beside,
        }

    return workspace.kept("split", shown.name, split)


def _truly_named(workspace: Space, photo: Captioned, concept: str) -> bool:
    return names(workspace.captions.get(photo.id, ""), concept) and supported(photo, concept)


def _neurons(workspace: Space, shown: ConceptPhotos, called: str, count: int | None) -> NeuronSet:
    """The first ``count`` neurons of a method; for None as many as the first filter found."""
    method = _method(workspace, called)
    if method.chooses:
        like = method.like or next((m.called for m in each(workspace.recipe.methods) if m.filters), None)
        like = like or next(m.called for m in each(workspace.recipe.methods) if not m.chooses)
        return controls(workspace, shown, _neurons(workspace, shown, like, count), method.options)
    ranked = _ranked(workspace, shown, method)
    if count is None and not method.filters:
        count = len(_ranked(workspace, shown, _reference(workspace)))
    return ranked[:count]


def _ranked(workspace: Space, shown: ConceptPhotos, method: Method) -> NeuronSet:
    def find() -> Row:
        recipe = workspace.recipe
        photos = workspace.photos_of(_split(workspace, shown)["found_on"])
        counts = [count for one in each(recipe.methods) for count in one.K or recipe.K]
        numbers = [count for count in counts if isinstance(count, int)]
        if FOUND in counts and not method.filters:
            numbers.append(len(_ranked(workspace, shown, _reference(workspace))))
        top = None if FOUND in counts and method.filters else max([1, *numbers])
        found = concept_neurons(workspace, shown, photos, method, top, recipe.null_photos)
        addresses = [[n.layer, n.unit] if n.expert is None else [n.layer, n.unit, n.expert] for n in found.neurons]
        return {"neurons": addresses, "funnel": found.record.get("funnel")}

    kept = workspace.kept("found", f"{shown.name}/{method.called}", find)
    return NeuronSet.of(Neuron(*address) for address in kept["neurons"])


def _reference(workspace: Space) -> Method:
    return next(method for method in each(workspace.recipe.methods) if method.filters)


def _method(workspace: Space, called: str) -> Method:
    return next(method for method in each(workspace.recipe.methods) if method.called == called)


@contextlib.contextmanager
def _changed(workspace: Space, neurons: NeuronSet, intervention: str | Scaled) -> Iterator[None]:
    if not len(neurons):
        yield
    elif intervention == "mean_ablate":
        with mean_ablate(workspace.model, neurons, _means(workspace, neurons)):
            yield
    else:
        with scale(workspace.model, neurons, intervention.scale if isinstance(intervention, Scaled) else 0.0):
            yield


def _means(workspace: Space, neurons: NeuronSet) -> dict[Neuron, float]:
    there: Sequence[Captioned] = [photo for photo in workspace.photos if photo.id in workspace.captions]
    drawn = workspace.random("means").sample(there, min(workspace.recipe.means, len(there)))
    if not drawn:
        raise MethodError("There is no photo to take mean activations from.")
    return mean_activations(workspace.model, neurons, [workspace.run(photo) for photo in drawn])
