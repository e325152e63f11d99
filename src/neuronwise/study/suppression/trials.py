"""What one case of this study tries: a concept or a single photo, a method, an intervention and K; and its neurons."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from neuronwise.answers.naming import names, objects_named
from neuronwise.data.photos import Captioned
from neuronwise.data.words import COCO_CATEGORIES, COCO_KINDS, PERSON
from neuronwise.errors import MethodError
from neuronwise.locate.baseline import Baseline, resolved
from neuronwise.locate.controls import random_same_layers
from neuronwise.neurons import Neuron, NeuronSet
from neuronwise.study.concept_photos import ConceptPhotos, supported
from neuronwise.study.entries import FOUND, Options, each
from neuronwise.study.interventions import Scene
from neuronwise.study.methods import Method, concept_neurons
from neuronwise.study.store import Row
from neuronwise.study.suppression.recipe import Changing, SuppressionRecipe
from neuronwise.study.workspace import Workspace

Space = Workspace[SuppressionRecipe]


@dataclass(frozen=True)
class Group:
    """What neurons are found for: a concept with its photos ("dog"), or one of them by itself ("dog 17")."""

    id: str
    shown: ConceptPhotos
    alone: bool = False


@dataclass(frozen=True)
class Trial:
    """One case. ``count`` is None for K "found"."""

    group: Group
    method: Method
    intervention: Changing
    count: int | None

    @property
    def id(self) -> str:
        """Of the case: "dog/contribution/suppress/50"."""
        count = FOUND if self.count is None else self.count
        return f"{self.group.id}/{self.method.called}/{self.intervention.called}/{count}"


def trials(workspace: Space) -> dict[str, Trial]:
    """All of them by their ids, the same list every time."""
    return workspace.memo("trials", lambda: {trial.id: trial for trial in _listed(workspace)})


def _listed(workspace: Space) -> Iterator[Trial]:
    recipe = workspace.recipe
    if isinstance(recipe.means, str):
        _usual(workspace)  # so that the baseline of another model is refused before anything is asked
    for group in _groups(workspace):
        if not split_of(workspace, group)["found_on"]:
            why = "no photo is left to find its neurons on (with a mask, and beside the held-out ones)"
            workspace.skip(group.shown.name, why)
            continue
        for method, one in itertools.product(each(recipe.methods), each(recipe.interventions)):
            if one.methods is None or method.called in one.methods:
                for count in one.K or method.K or recipe.K:
                    yield Trial(group, method, one, None if count == FOUND else count)


def route_of(workspace: Space, trial: Trial) -> str:
    """What trials share that need the same neurons found: those of a group where each method takes as many as a filter
    found, else those of a group and a method, with the random ones that stand beside it."""
    if any(other.count is None for other in trials(workspace).values()):
        return trial.group.id
    method, direct = trial.method, any(not one.locating.control for one in each(workspace.recipe.methods))
    if method.locating.control and direct:
        method = _beside(workspace, method)
    return f"{trial.group.id}/{method.called}"


def _groups(workspace: Space) -> list[Group]:
    """The concepts, or ``photos`` drawn by the seed, each with one concept that its caption names (a person last)."""
    concepts, most = workspace.concepts, workspace.recipe.photos
    if most is None:
        return [Group(name, shown) for name, shown in concepts.items()]
    named: dict[str, list[str]] = {}
    for name, shown in concepts.items():
        for photo in _able(workspace, shown):
            named.setdefault(photo.id, []).append(name)
    found = []
    for photo in workspace.random("photos").sample(list(named), min(most, len(named))):
        able = [name for name in named[photo] if name != PERSON] or named[photo]
        name = workspace.random("concept", photo).choice(able)
        found.append(Group(f"{name} {photo}", concepts[name].only(photo), alone=True))
    return found


def _able(workspace: Space, shown: ConceptPhotos) -> tuple[Captioned, ...]:
    """Photos that neurons can be found on: with masks, where a method compares with a photo without the concept."""
    return shown.masked if any(method.compares for method in workspace.recipe.methods) else shown.photos


def split_of(workspace: Space, group: Group) -> dict[str, list[str]]:
    """Ids of photos by their role."""

    def split() -> dict[str, list[str]]:
        recipe, shown = workspace.recipe, group.shown
        able = [photo.id for photo in _able(workspace, shown)]
        if recipe.hallucinated:
            there = [p for p in workspace.photos if _truly_named(workspace, p, shown.name)]
            drawn = workspace.random("supported", shown.name).sample(there, min(recipe.without, len(there)))
            beside = {"supported": [photo.id for photo in drawn]}
        else:
            key = shown.ids if group.alone else []
            beside = {"without": [photo.id for photo in workspace.without(shown.name, recipe.without, *key)]}
        tested = 0 if group.alone else max(1, round(recipe.held_out * len(shown.photos)))
        found_on = able[: min(recipe.found_on, len(shown.photos) - tested)]
        return {"found_on": found_on, "held_out": [name for name in shown.ids if name not in found_on], **beside}

    return workspace.kept("split", group.id, split)


def _truly_named(workspace: Space, photo: Captioned, concept: str) -> bool:
    return names(workspace.captions.get(photo.id, ""), concept) and supported(photo, concept)


def target_of(workspace: Space, group: Group) -> str | None:
    """The word that swap puts in place of a concept: the recipe's, or a category that no photo of the group has and no
    caption names, of the same kind where there is one, drawn by the seed. Its name is one token: swap moves the first.

    None in a study that swaps nothing; raises ``MethodError`` where no category is left.
    """
    recipe = workspace.recipe
    if not recipe.swaps or recipe.target is not None:
        return recipe.target

    def draw() -> str:
        name, taken = group.shown.name, set[str]()
        for photo in group.shown.photos:
            taken |= photo.categories() | objects_named(workspace.captions[photo.id])
        free = [one for one in COCO_CATEGORIES if one not in taken | {name} and _one_token(workspace, one)]
        near = [one for one in free if COCO_KINDS[one] == COCO_KINDS.get(name)]
        if not free:
            raise MethodError(f"No category is left to put in place of {name!r}; name one in the recipe: target: WORD.")
        return workspace.random("target", group.id).choice(near or free)

    return workspace.kept("target", group.id, draw)


def _one_token(workspace: Space, word: str) -> bool:
    return len(workspace.model.tokenizer(f" {word}", add_special_tokens=False).input_ids) == 1


@contextlib.contextmanager
def changed(workspace: Space, trial: Trial) -> Iterator[Row]:
    """Within the body the model is changed as the trial says; gives what the intervention notes. Without neurons the
    model stays as it is."""
    neurons = neurons_of(workspace, trial.group, trial.method, trial.count)
    if not len(neurons):
        yield {}
        return
    entry, shown = trial.intervention, trial.group.shown
    moved = _moved_beside(workspace, trial)
    if moved == 0.0:
        yield {}
        return
    photos = workspace.photos_of(split_of(workspace, trial.group)["found_on"])
    scene = Scene(
        workspace.model,
        neurons,
        [workspace.run(photo) for photo in photos],
        [shown.word(photo) for photo in photos],
        target_of(workspace, trial.group),
        lambda: _usual(workspace),
        moved,
    )
    with entry.intervening.begin(scene, entry.intervening.made(entry.options)) as noted:
        yield noted


def _moved_beside(workspace: Space, trial: Trial) -> float | None:
    """How far a swap moved the neurons that random ones stand beside, 0 where it found nothing to do; else None."""
    if not (trial.intervention.intervening.swaps and trial.method.locating.control):
        return None
    other = replace(trial, method=_beside(workspace, trial.method))
    return noted(workspace, other).get("norm") or 0.0


def noted(workspace: Space, trial: Trial) -> Row:
    """What a trial's intervention notes, kept: it is the same whenever it is asked for."""

    def note() -> Row:
        with changed(workspace, trial) as row:
            return dict(row)

    return workspace.kept("noted", trial.id, note)


def neurons_of(workspace: Space, group: Group, method: Method, count: int | None) -> NeuronSet:
    """The first ``count`` neurons of a method; for None as many as the first filter found."""
    if method.chooses:
        like = neurons_of(workspace, group, _beside(workspace, method), count)
        return _controls(workspace, group.shown, like, method.options)
    ranked = _ranked(workspace, group, method)
    if count is None and not method.filters:
        count = len(_ranked(workspace, group, _filter(workspace)))
    return ranked[:count]


def _controls(workspace: Space, shown: ConceptPhotos, like: NeuronSet, options: Options) -> NeuronSet:
    """As many random neurons of the same layers."""
    return random_same_layers(workspace.model, like, seed=options.get("seed", workspace.seed(shown.name)))


def _ranked(workspace: Space, group: Group, method: Method) -> NeuronSet:
    def find() -> Row:
        recipe = workspace.recipe
        photos = workspace.photos_of(split_of(workspace, group)["found_on"])
        counts = {trial.count for trial in trials(workspace).values()}
        numbers = [count for count in counts if count is not None]
        if None in counts and not method.filters:
            numbers.append(len(_ranked(workspace, group, _filter(workspace))))
        top = None if None in counts and method.filters else max([1, *numbers])
        found = concept_neurons(workspace, group.shown, photos, method, top, recipe.null_photos)
        addresses = [[n.layer, n.unit] if n.expert is None else [n.layer, n.unit, n.expert] for n in found.neurons]
        return {"neurons": addresses, "funnel": found.record.get("funnel")}

    kept = workspace.kept("found", f"{group.id}/{method.called}", find)
    return NeuronSet.of(Neuron(*address) for address in kept["neurons"])


def _filter(workspace: Space) -> Method:
    """The method whose number of neurons the others take for K "found"."""
    return next(method for method in each(workspace.recipe.methods) if method.filters)


def _beside(workspace: Space, control: Method) -> Method:
    """The method that random neurons stand beside: the one that they are ``like``, else the first filter, else the
    first that is no control."""
    direct = [method for method in each(workspace.recipe.methods) if not method.locating.control]
    wanted = [method for method in direct if method.called == control.like] or [m for m in direct if m.filters]
    return (wanted or direct)[0]


def _usual(workspace: Space) -> Baseline:
    """What the recipe's ``means`` names; raises ``MethodError`` for the baseline of another model."""

    def gather() -> Baseline:
        means, model = workspace.recipe.means, workspace.model
        if isinstance(means, str):
            named = resolved(model, means)
            assert named is not None
            return named
        there = [photo for photo in workspace.photos if photo.id in workspace.captions]
        drawn = workspace.random("means").sample(there, min(means, len(there)))
        return Baseline.gather(model, [workspace.run(photo) for photo in drawn])

    return workspace.memo("usual", gather)
