"""The keys of a recipe of the kind "probe", each checked by itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from neuronwise.data.photos import Photos
from neuronwise.data.photos.pope import NEGATIVES, Negatives
from neuronwise.errors import NeuronwiseError
from neuronwise.study.entries import name_of
from neuronwise.study.recipe_fields import NonNegative, NotNegative, PhotoRecipe, Positive, Text, once
from neuronwise.study.word_neurons import WordMethod, WordMethods


def _features(methods: list[WordMethod]) -> list[WordMethod]:
    for method in methods:
        if not method.locating.scores_all or method.compares:
            raise ValueError(f"{name_of(method)} does not score every neuron of one run, so it gives no features")
    return methods


class ProbeRecipe(PhotoRecipe):
    """``asked``: "nouns", objects that captions name, hallucinated or true; "pope", yes/no questions about objects.

    ``photos``: the number of annotated photos, drawn by the seed. ``transfer``: another part of the data, of which
    ``transfer_photos`` are judged by the probes fitted on the first. ``questions``: objects that are there, and absent
    ones of each kind of ``negatives``, of each photo. ``strengths``, ``folds``, ``shuffles``: as of ``probe``.
    """

    asked: list[Literal["nouns", "pope"]] = ["nouns", "pope"]
    methods: Annotated[WordMethods, AfterValidator(_features)]
    photos: Positive = 60
    transfer: Text | None = None
    transfer_photos: Positive = 30
    questions: Positive = 2
    negatives: list[Negatives] = list(NEGATIVES)
    strengths: list[NonNegative] = [0.01, 0.03, 0.1, 0.3, 1.0]
    folds: Annotated[int, Field(ge=2)] = 5
    shuffles: NotNegative = 5

    _once = field_validator("asked", "negatives", "strengths")(once)

    @field_validator("transfer")
    @classmethod
    def _other(cls, transfer: str | None, info: ValidationInfo) -> str | None:
        if transfer is not None and info.data["data"].part in (None, transfer):
            raise ValueError("name the part that probes are fitted on, data: {part: …}, and another one here")
        return transfer

    def load(self) -> Photos:
        """The photos that are drawn, those of the transfer part last."""
        fitted = self._drawn(super().load(), self.photos)
        if self.transfer is None:
            return fitted
        other = self.model_copy(update={"data": self.data.model_copy(update={"part": self.transfer})})
        judged = self._drawn(PhotoRecipe.load(other), self.transfer_photos)
        return Photos((*fitted.photos, *judged.photos), (*fitted.problems, *judged.problems), fitted.source)

    def _drawn(self, photos: Photos, count: int) -> Photos:
        annotated = [photo for photo in photos if photo.objects is not None]
        if not annotated:
            raise NeuronwiseError(f"None of the photos of {photos.source or 'the folder'} has annotated objects.")
        drawn = random.Random(self.seed).sample(annotated, min(count, len(annotated)))
        return Photos(tuple(drawn), photos.problems, photos.source)

    def transfers(self, path: Path) -> bool:
        """Whether a photo is of the transfer part."""
        return self.transfer is not None and path.parent.name == self.transfer
