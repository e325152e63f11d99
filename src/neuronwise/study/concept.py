"""The neurons of one concept over many photos that show it, by any method."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from pydantic import ValidationError

from neuronwise.answers.naming import names
from neuronwise.data.photos import Captioned, Photos
from neuronwise.errors import MethodError
from neuronwise.images import open_image
from neuronwise.images.masks import Mask
from neuronwise.model.halving import BatchSize
from neuronwise.model.model import Model
from neuronwise.neurons import NeuronSet
from neuronwise.read.decode import Effect, effects
from neuronwise.read.finding import concept_row, finding_head
from neuronwise.study.concept_photos import shows
from neuronwise.study.methods import Method, concept_neurons
from neuronwise.study.progress import Progress, silent
from neuronwise.study.recipe_fields import PhotoRecipe
from neuronwise.study.workspace import Workspace

DRAWN = 4  # times as many photos as are used at most are captioned, drawn by the seed


@dataclass(frozen=True)
class ConceptFinding:
    """``neurons`` of ``concept``, the tokens that each raises and lowers, and the ``photos`` that they were found on.

    ``left_out``: photos that show the concept and were not used, with the reason.
    """

    concept: str
    neurons: NeuronSet
    effects: list[Effect] = field(repr=False)
    photos: tuple[Captioned, ...]
    left_out: Mapping[str, str] = field(repr=False)
    workspace: Workspace = field(repr=False)

    def pictures(self, photo: Captioned) -> tuple[Image.Image, Mask | None, Image.Image | None]:
        """A photo, the dilated mask of the concept, and the photo without it; None where these are not known."""
        image = open_image(photo.path)
        if photo not in self.workspace.concepts[self.concept].masked:
            return image, None, None
        pictures = self.workspace.pictures
        hole = None if pictures.ready_made else pictures.hole(photo, self.concept)
        return image, hole, pictures.inpainted(photo, self.concept)

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values, in the form ``neuronwise.find/2`` with ``photos`` in place of one text."""
        record, shown = self.neurons.record, self.workspace.concepts[self.concept]
        model = self.workspace.model
        more = {} if self.neurons else {"note": f"No neuron passes {record['method']} for {self.concept!r}."}
        return {
            **finding_head(model, record, self.workspace.recipe.seed, len(self.neurons)),
            "text": None,
            "photos": [
                {"id": photo.id, "file": photo.path.name, "text": self.workspace.captions[photo.id],
                 "word": shown.word(photo)}
                for photo in self.photos
            ],
            "left_out": dict(self.left_out),
            "funnel": record.get("funnel"),
            "rendered": None,
            "concepts": [
                concept_row(model, self.concept, record["token_id"], None, self.neurons, self.effects, **more)
            ],
        }  # fmt: skip


def find(
    model: Model,
    photos: Photos,
    concept: str,
    *,
    method: str = "two_stage",
    top: int = 100,
    options: Mapping[str, Any] | None = None,
    agree: str = "mean",
    most: int = 12,
    masks: Mapping[str, Mask] | None = None,
    inpainting: str = "telea",
    dilation: int = 5,
    prompt: str | None = None,
    max_new_tokens: int = 50,
    batch: BatchSize = "auto",
    null_photos: int = 5,
    seed: int = 0,
    progress: Progress = silent,
) -> ConceptFinding:
    """Caption the photos that show a concept, and find its neurons on at most ``most`` whose caption names it.

    ``method``: "two_stage" (``options``: fields of ``TwoStage``; needs a mask, from annotations or ``masks`` by photo
    id, or ready inpainted photos), or any that scores all neurons, joined as by ``locate``. Thresholds "null" are
    found on ``null_photos`` without the concept. ``batch`` as of ``PhotoRecipe``. Raises ``MethodError`` for an unknown
    method or option and ``StudyError`` when no caption names the concept.
    """
    try:
        chosen = Method(method=method, options=dict(options or {}), agree=agree)  # type: ignore[arg-type]
        recipe = PhotoRecipe(
            kind="find", concepts=[concept], at_least=1, most=most, prompt=prompt, max_new_tokens=max_new_tokens,
            batch=batch, inpainting=inpainting, dilation=dilation, seed=seed,
        )  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        said = first.get("ctx", {}).get("error", first["msg"])
        raise MethodError(f"{'.'.join(map(str, first['loc']))}: {said}") from error
    there = [photo for photo in photos if shows(photo, concept)]
    random.Random(seed).shuffle(there)
    there = there[: DRAWN * most]  # of a large dataset not every photo is captioned
    nothing = tuple(photo for photo in photos if not shows(photo, concept)) if _needs_null(chosen) else ()
    drawn = Photos((*there, *nothing[: 4 * null_photos]), photos.problems, photos.source)
    workspace = Workspace(model, recipe, drawn, masks=masks, tell=progress)
    shown = workspace.concepts[concept]
    used = shown.masked if chosen.compares else shown.photos
    if not used:
        raise MethodError(
            f"{method} takes the concept out of photos; none of the {len(shown.photos)} whose caption names "
            f"{concept!r} has a mask or an inpainted counterpart."
        )
    found = concept_neurons(workspace, shown, used, chosen, top, null_photos)
    left_out = {photo.id: _why(workspace, photo, concept) for photo in there if photo not in used}
    return ConceptFinding(concept, found, effects(model, found), used, left_out, workspace)


def _needs_null(method: Method) -> bool:
    return method.filters and "null" in method.options.values()


def _why(workspace: Workspace, photo: Captioned, concept: str) -> str:
    shown = workspace.concepts[concept]
    if photo.id in workspace.unread:
        return workspace.unread[photo.id]
    if photo in shown.photos:
        return "it has no mask"
    said = workspace.captions[photo.id]
    return (
        f"more than {workspace.recipe.most} photos"
        if names(said, concept)
        else f"its caption does not name it: {said!r}"
    )
