"""The keys of a recipe of the kind "suppression", each checked by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ValidationInfo, field_serializer, field_validator, model_validator

from neuronwise.data.photos import Captioned
from neuronwise.errors import MethodError
from neuronwise.measure.captions import require_metrics
from neuronwise.study.concept_photos import supported
from neuronwise.study.entries import FOUND, Count, Options, Sweep, combinations, each, name_of, named
from neuronwise.study.interventions import INTERVENTIONS, Intervention
from neuronwise.study.methods import Method, Methods
from neuronwise.study.recipe_fields import STRICT, MetricModels, NotNegative, PhotoRecipe, Positive, Share, Text, once


class Changing(BaseModel):
    """One intervention with its options. ``name``: how the tables call it. ``K``: other numbers of neurons than the
    method's. ``methods``: names of the methods whose neurons it changes, all by default. ``sweep``: see ``Method``."""

    model_config = STRICT
    key: ClassVar[str] = "intervention"
    intervention: Text
    name: Text | None = None
    options: Options = {}
    sweep: Sweep = {}
    K: list[Count] | None = None
    methods: list[Text] | None = None

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        try:
            for chosen in combinations(self.sweep):
                self.intervening.made({**self.options, **chosen})
        except MethodError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def called(self) -> str:
        """Its name in tables: the given one, "scale 0.5" of an intervention with one option, else with its options."""
        short = self.short
        if self.name is None and isinstance(short, dict):
            ((name, value),) = short.items()
            return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        return name_of(self)

    @property
    def intervening(self) -> Intervention:
        """The intervention itself."""
        return INTERVENTIONS[self.intervention]

    @property
    def short(self) -> str | Options | None:
        """ "suppress", or {"scale": 0.5} of one with a single option: as a recipe may write it; None where it must be
        whole."""
        given = self.model_dump(exclude_defaults=True)
        if list(given) == ["intervention"]:
            return self.intervention
        if list(given) == ["intervention", "options"] and len(fields(self.intervening.settings)) == 1:
            return {self.intervention: next(iter(self.options.values()))}
        return None


def _whole(given: object) -> object:
    """{"scale": 0.5} written out."""
    if isinstance(given, dict) and len(given) == 1 and (name := next(iter(given))) in INTERVENTIONS:
        setting = next(iter(fields(INTERVENTIONS[name].settings)), None)
        return {"intervention": name, "options": {} if setting is None else {setting.name: given[name]}}
    return given


class SuppressionRecipe(PhotoRecipe):
    """``held_out``: the share of a concept's photos that are only tested on; neurons are found on at most ``found_on``
    of the others. ``photos``: instead, each photo by itself, so many of them: neurons are found on it and it is asked
    again. ``without``: photos without the concept. ``hallucinated``: the concept's photos are those whose caption names
    it while neither annotations nor references support it, and photos that do have it are captioned too (``without``
    of them). ``means``: what mean_ablate sets neurons to, the baseline over the captions of so many photos, "self", or
    the folder of a saved one. ``target``: the word that swap puts in place of the concept, by default another category.
    ``prompts``: what else photos of the concept are asked; a prompt with {} holds their caption and is asked without
    the photo.
    """

    methods: Methods
    K: list[Count] = [10, 50]
    interventions: Annotated[list[Changing], named(Changing.key, _whole)] = [
        Changing(intervention=name) for name in ("mean_ablate", "suppress")
    ]
    held_out: Share = 0.5
    found_on: Positive = 5
    photos: Positive | None = None
    without: NotNegative = 6
    null_photos: Positive = 5
    means: Positive | Text = 16
    metrics: list[Text] = ["bleu-4", "rouge-l", "cider"]
    metric_models: MetricModels = MetricModels()
    hallucinated: bool | None = None
    target: Text | None = None
    prompts: list[Text] | None = None

    def takes(self, photo: Captioned, concept: str) -> bool:
        """Photos that show the concept, or those that do not where it is hallucinated."""
        return not supported(photo, concept) if self.hallucinated else super().takes(photo, concept)

    @property
    def swaps(self) -> bool:
        """Whether any intervention puts another word in place of the concept."""
        return any(one.intervening.swaps for one in self.interventions)

    @field_validator("methods")
    @classmethod
    def _found(cls, methods: list[Method]) -> list[Method]:
        _require_filter([count for method in methods for count in method.K or ()], methods)
        return methods

    @field_validator("K")
    @classmethod
    def _counts(cls, counts: list[Count], info: ValidationInfo) -> list[Count]:
        _require_filter(counts, info.data.get("methods"))
        return once(counts)

    @field_validator("interventions")
    @classmethod
    def _interventions(cls, listed: list[Changing], info: ValidationInfo) -> list[Changing]:
        once([one.called for one in each(listed)])
        methods = info.data.get("methods")
        _require_filter([count for one in listed for count in one.K or ()], methods)
        known = [method.called for method in each(methods or ())]
        for name in (name for one in listed for name in one.methods or ()):
            if known and name not in known:
                raise ValueError(f"{name!r} names none of the methods ({', '.join(known)})")
        return listed

    @field_serializer("interventions")
    def _short(self, listed: list[Changing]) -> list[str | Options]:
        return [one.short or one.model_dump() for one in listed]

    @field_validator("means")
    @classmethod
    def _baseline(cls, means: int | str) -> int | str:
        from neuronwise.locate.baseline import SELF, Baseline  # loads torch, which --help does not need

        if isinstance(means, str) and means != SELF:
            try:
                Baseline.load(means)
            except MethodError as error:
                raise ValueError(str(error)) from error
        return means

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, metrics: list[str]) -> list[str]:
        try:
            require_metrics(metrics)
        except MethodError as error:
            raise ValueError(str(error)) from error
        return metrics


def _require_filter(counts: Sequence[Count], methods: Sequence[Method] | None) -> None:
    if FOUND in counts and methods is not None and not any(method.filters for method in methods):
        raise ValueError(f'K "{FOUND}" needs a method that filters, such as two_stage')
