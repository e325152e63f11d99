"""The keys of a recipe of the kind "localization", each checked by itself."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import field_validator

from neuronwise.data.photos import Photos
from neuronwise.measure.localization import COUNTS
from neuronwise.study.recipe_fields import NotNegative, PhotoRecipe, Positive, Text, once
from neuronwise.study.word_neurons import WordMethods


class LocalizationRecipe(PhotoRecipe):
    """``words``, ``facts``: how many, drawn by the seed. ``fact_file``: facts in any known form, or "shipped".
    ``others``: how many other facts lose the same neurons. Without words no photos are needed, and ``--data`` on the
    shell names the facts.

    ``fills``: what a neuron that is taken away becomes. ``positions``: at the position that predicts the word, or
    everywhere. ``mean_over``: the number of words (or facts) that means are taken over.
    """

    methods: WordMethods
    counts: list[Positive] = list(COUNTS)
    words: NotNegative = 60
    facts: NotNegative = 60
    fact_file: Text = "shipped"
    fills: list[Literal["zero", "mean"]] = ["zero", "mean"]
    positions: Literal["predicting", "all"] = "predicting"
    mean_over: Positive = 32
    others: Positive | None = None

    _fills = field_validator("fills")(once)

    def at(self, data: str) -> Self:
        """The same recipe on other photos, or on other facts where there are no words."""
        return super().at(data) if self.words else self.model_copy(update={"fact_file": data or self.fact_file})

    def load(self) -> Photos:
        """Open the folder of photos, if words of captions are asked for."""
        return super().load() if self.words else Photos(())

    @field_validator("counts")
    @classmethod
    def _rising(cls, counts: list[int]) -> list[int]:
        if not counts or sorted(set(counts)) != counts:
            raise ValueError("the numbers of neurons must rise")
        return counts
