"""The keys of a recipe of the kind "properties", each checked by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from neuronwise.measure.properties import KAPPAS
from neuronwise.study.entries import each
from neuronwise.study.recipe_fields import (
    MetricModels,
    NonNegative,
    NotNegative,
    PhotoRecipe,
    Positive,
    Share,
    once,
)
from neuronwise.study.word_neurons import WordMethods


class PropertiesRecipe(PhotoRecipe):
    """``K``: neurons of one word. ``photos``: the largest number of cases, of all concepts in turn.

    ``noisy``: names of the methods whose neurons get noise (all by default). Two sweeps: ``sigmas`` at ``noise_K``
    neurons, and ``counts`` of neurons at ``noise_sigma``; captions are generated anew for ``said_sigmas`` at
    ``noise_K``. ``images``, ``kappas``: for the report's cross-image invariance and specificity.
    """

    methods: WordMethods
    K: Positive = 100
    photos: Positive = 60
    shuffles: NotNegative = 1
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

    _once = field_validator("sigmas", "counts", "kappas")(once)

    @field_validator("noisy")
    @classmethod
    def _named(cls, noisy: list[str] | None, info: ValidationInfo) -> list[str] | None:
        called = [method.called for method in each(info.data.get("methods", []))]
        for name in noisy or ():
            if called and name not in called:
                raise ValueError(f"{name!r} names none of the methods ({', '.join(called)})")
        return noisy
