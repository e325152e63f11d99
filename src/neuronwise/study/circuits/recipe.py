"""The keys of a recipe of the kind "circuits", each checked by itself."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, field_validator

from neuronwise.data.photos import Photos
from neuronwise.study.entries import name_of
from neuronwise.study.recipe_fields import NotNegative, PhotoRecipe, Positive, Text, once
from neuronwise.study.word_neurons import WordMethod, WordMethods


def _scoring(methods: list[WordMethod]) -> list[WordMethod]:
    for method in methods:
        if not method.locating.scores_all:
            raise ValueError(f"{name_of(method)} does not score every neuron, so it ranks no circuit")
    return methods


class CircuitsRecipe(PhotoRecipe):
    """``words``, ``facts``: how many, drawn by the seed. ``fact_file``: facts in any known form, or "shipped". Without
    words no photos are needed, and ``--data`` on the shell names the facts.

    ``counts``: numbers of kept (neuron, position) pairs. ``fills``: what all others become. ``contrast``: how many of
    the model's alternatives the word's logit is measured against, and scored against by methods that can.
    """

    methods: Annotated[WordMethods, AfterValidator(_scoring)]
    counts: list[Positive] = [10, 100, 1000, 10000, 100000]
    words: NotNegative = 200
    facts: NotNegative = 200
    fact_file: Text = "shipped"
    fills: list[Literal["mean", "zero", "twin"]] = ["mean", "zero"]
    contrast: Positive = 10

    _fills = field_validator("fills")(once)

    @field_validator("counts")
    @classmethod
    def _rising(cls, counts: list[int]) -> list[int]:
        if not counts or sorted(set(counts)) != counts:
            raise ValueError("counts are numbers of pairs, each above the last")
        return counts

    def at(self, data: str) -> Self:
        """The same recipe on other photos, or on other facts where there are no words."""
        return super().at(data) if self.words else self.model_copy(update={"fact_file": data or self.fact_file})

    def load(self) -> Photos:
        """The photos, or none where the recipe has no words."""
        return super().load() if self.words else Photos((), (), "")
