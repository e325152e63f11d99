"""Maps over a photo for one word of its caption, judged against the object and by what the word loses.

A case is one word that names an annotated object. One row a map and word that the map is of, with the columns

- ``what`` "map"; ``text``: "own" for the model's caption, "reference" for an annotator's, forced; ``concept``,
  ``photo``, ``word``
- ``map``: a kind of evidence, the heat of a method's neurons, or a control: "center", "random cells"
- ``of``: "word", or "another word" of the same caption, whose map is judged as if it were the word's
- ``pointing``, ``iou``, ``object_share``, ``chance``: as of ``measure.photo_maps.MapFit``
- ``before``: log p of the word (nats); ``fill``, ``gray``: lists, log p without the hottest ``shares`` of the cells, by
  the mean image token (null where a cell has no token of its own) and painted gray
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from neuronwise.answers.naming import objects_named
from neuronwise.data.photos import Captioned
from neuronwise.locate import METHODS, locate
from neuronwise.measure.photo_maps import PhotoDeletion, center_map, hottest, map_fit, random_map
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run, Target
from neuronwise.read import heatmap
from neuronwise.read.evidence import evidences
from neuronwise.read.photo_map import PhotoMap
from neuronwise.study.concept_photos import word_for
from neuronwise.study.entries import each
from neuronwise.study.kind import Case
from neuronwise.study.localization.recipe import LocalizationRecipe
from neuronwise.study.store import Row
from neuronwise.study.workspace import Workspace

if TYPE_CHECKING:
    from neuronwise.model.concepts import Concept

Space = Workspace[LocalizationRecipe]


def map_cases(workspace: Space) -> list[Case]:
    """Words of the model's captions and, where the recipe asks, of references that name an annotated object."""
    recipe = workspace.recipe
    found: list[Case] = []
    for text in recipe.texts if recipe.maps else ():
        listed = [(concept, photo) for concept, photo in _named(workspace, text)]
        workspace.random("maps", text).shuffle(listed)
        found += [
            Case(
                f"map/{text}/{concept}/{photo.id}", {"what": "map", "text": text, "concept": concept, "photo": photo.id}
            )
            for concept, photo in listed[: recipe.maps]
        ]
    return found


def _named(workspace: Space, text: str) -> Iterator[tuple[str, Captioned]]:
    """Concepts that a text about a photo names and of which it is known where they are, no larger than ``largest``."""
    annotated = [photo for photo in workspace.photos if photo.categories()]  # no other photo is captioned
    captions = workspace.captions_of(annotated) if text == "own" else {}
    for photo in annotated:
        caption = captions.get(photo.id, "") if text == "own" else " ".join(photo.captions[:1])
        for concept in sorted(objects_named(caption) & photo.categories()):
            if workspace.pictures.known(photo, concept):
                share = float(workspace.mask(photo, concept).mean())
                if 0 < share <= workspace.recipe.largest:
                    yield concept, photo


def measure_maps(workspace: Space, case: Case) -> list[Row]:
    """One row for each map of the word and, under another word's name, of another."""
    recipe, inputs = workspace.recipe, case.inputs
    photo, concept = workspace.by_id[inputs["photo"]], inputs["concept"]
    if inputs["text"] == "own":
        run = workspace.run(photo)
    else:
        run = workspace.model.run(photo.path, recipe.prompt, text=photo.captions[0])
    word = word_for(run.text, concept)
    target, other = run.target(word), _another(workspace, run, concept, case)
    tokens = PhotoTokens.of(run)
    mask, deletion = workspace.mask(photo, concept), PhotoDeletion(run, target, tokens)
    judged = [
        (of, name, over) for of, maps in _maps(workspace, run, target, other).items() for name, over in maps.items()
    ]
    parts = [hottest(over.grid, recipe.shares) for _, _, over in judged]
    filled, gray = (
        taken([cells for part in parts for cells in part]) for taken in (deletion.by_fill, deletion.by_gray)
    )
    rows: list[Row] = []
    for number, (of, name, over) in enumerate(judged):
        fit, own = map_fit(over, mask), slice(number * len(recipe.shares), (number + 1) * len(recipe.shares))
        rows.append(
            {
                "map": name,
                "of": of,
                "word": word,
                "other": None if other is None else other.text,
                "pointing": fit.pointing,
                "iou": fit.iou,
                "object_share": fit.object_share,
                "chance": fit.chance,
                "before": deletion.before,
                "fill": None if filled is None else filled[own],
                "gray": None if gray is None else gray[own],
            }
        )
    return rows


def _another(workspace: Space, run: Run, concept: str, case: Case) -> Target | None:
    """Another noun of the caption, annotated or not, drawn by the seed; None where the caption has no other."""
    others: list[Concept] = [one for one in run.concepts if concept not in objects_named(one.word)]
    return run.target(workspace.random("another", case.id).choice(others)) if others else None


def _maps(workspace: Space, run: Run, target: Target, other: Target | None) -> Mapping[str, dict[str, PhotoMap]]:
    """All maps of the word, controls included, and those of another word that depend on the word."""
    recipe, model = workspace.recipe, run.model
    words = {"word": target} if other is None else {"word": target, "another word": other}
    found: dict[str, dict[str, PhotoMap]] = {of: {} for of in words}
    for kind in each(recipe.evidence):
        for of, one in zip(words, evidences(model, run, list(words.values()), by=kind.by, **kind.options), strict=True):
            found[of][kind.called] = one
    for method in each(recipe.heat):
        for of, one in words.items():
            options = {**method.options, **({"seed": workspace.seed(of)} if METHODS[method.method].control else {})}
            neurons = locate(
                model,
                run,
                target=one.token_id,
                position=one.position,
                method=method.method,
                top=recipe.heat_top,
                **options,
            )
            found[of][f"heat: {method.called}"] = heatmap(model, run, neurons)
    like = next(iter(found["word"].values()))
    found["word"] |= {
        "center": center_map(like),
        "random cells": random_map(like, workspace.seed("cells", target.text)),
    }
    return found
