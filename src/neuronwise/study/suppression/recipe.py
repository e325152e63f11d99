"""The keys of a recipe of the kind "suppression", each checked by itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ValidationInfo, field_validator

from neuronwise.data.photos import Captioned
from neuronwise.errors import MethodError
from neuronwise.measure.captions import require_metrics
from neuronwise.study.concept_photos import supported
from neuronwise.study.methods import FOUND, Count, Method, as_methods, checked
from neuronwise.study.recipe_fields import (
    STRICT,
    MetricModels,
    NonNegative,
    NotNegative,
    PhotoRecipe,
    Positive,
    Share,
    Text,
    once,
)


class Scaled(BaseModel):
    """``scale: 0.5``: activations times a number."""

    model_config = STRICT
    scale: NonNegative


class SuppressionRecipe(PhotoRecipe):
    """``held_out``: the share of a concept's photos that are only tested on; neurons are found on at most ``found_on``
    of the others. ``hallucinated``: the concept's photos are those whose caption names it while neither annotations nor
    references support it, and photos that do have it are captioned too (``without`` of them). ``without``: photos
    without the concept. ``means``: photos whose mean activations mean_ablate takes.
    """

    methods: Annotated[list[Method], BeforeValidator(as_methods)]
    K: list[Count] = [10, 50]
    interventions: list[Literal["suppress", "mean_ablate"] | Scaled] = ["suppress"]
    held_out: Share = 0.5
    found_on: Positive = 5
    without: NotNegative = 6
    null_photos: Positive = 5
    means: Positive = 16
    metrics: list[Text] = ["bleu-4", "rouge-l", "cider"]
    metric_models: MetricModels = MetricModels()
    hallucinated: bool | None = None

    _methods = field_validator("methods")(checked)
    _interventions = field_validator("interventions")(once)

    def takes(self, photo: Captioned, concept: str) -> bool:
        """Photos that show the concept, or those that do not where it is hallucinated."""
        return not supported(photo, concept) if self.hallucinated else super().takes(photo, concept)

    @field_validator("K")
    @classmethod
    def _counts(cls, counts: list[Count], info: ValidationInfo) -> list[Count]:
        methods = info.data.get("methods")
        if FOUND in counts and methods is not None and not any(method.filters for method in methods):
            raise ValueError(f'K "{FOUND}" needs two_stage among the methods')
        return once(counts)

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, metrics: list[str]) -> list[str]:
        try:
            require_metrics(metrics)
        except MethodError as error:
            raise ValueError(str(error)) from error
        return metrics
