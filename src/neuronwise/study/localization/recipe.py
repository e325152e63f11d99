"""The keys of a recipe of the kind "localization", each checked by itself."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from neuronwise.data.photos import Photos
from neuronwise.errors import MethodError
from neuronwise.measure.localization import COUNTS
from neuronwise.read.evidence.table import EVIDENCE
from neuronwise.study.entries import Options, Sweep, each, name_of, named
from neuronwise.study.methods import checked
from neuronwise.study.recipe_fields import STRICT, NonNegative, NotNegative, PhotoRecipe, Positive, Text, once
from neuronwise.study.word_neurons import WordMethod


class Kind(BaseModel):
    """A kind of evidence with its options. ``name``: how the tables call it."""

    model_config = STRICT
    key: ClassVar[str] = "by"
    by: Text
    name: Text | None = None
    options: Options = {}
    sweep: Sweep = {}

    @field_validator("options")
    @classmethod
    def _fitting(cls, options: Options, info: ValidationInfo) -> Options:
        try:
            EVIDENCE[info.data["by"]].check(options)
        except MethodError as error:
            raise ValueError(str(error)) from error
        return options

    @property
    def called(self) -> str:
        """Its name in tables."""
        return name_of(self)


Share = Annotated[float, Field(gt=0, le=1)]


def _kinds_once(kinds: list[Kind]) -> list[Kind]:
    if kinds:
        once([kind.called for kind in each(kinds)])
    return kinds


def _methods_checked(methods: list[WordMethod]) -> list[WordMethod]:
    return checked(methods) if methods else methods


# Lists that may be empty: a study without maps needs no kinds of evidence, one of maps alone no curves' methods.
Kinds = Annotated[list[Kind], named(Kind.key), AfterValidator(_kinds_once)]
MaybeMethods = Annotated[list[WordMethod], named(WordMethod.key), AfterValidator(_methods_checked)]


class LocalizationRecipe(PhotoRecipe):
    """``words``, ``facts``: how many, drawn by the seed; ``methods``: whose neurons are taken away. ``fact_file``:
    facts in any known form, or "shipped". ``others``: how many other facts lose the same neurons. Without words and
    maps no photos are needed, and ``--data`` on the shell names the facts.

    ``fills``: what a neuron that is taken away becomes. ``positions``: at the position that predicts the word, or
    everywhere. ``mean_over``: the number of words (or facts) that means are taken over.

    ``weights``: for facts, each method that scores every neuron is followed by its scores less so many times their
    mean size over ``reference`` other known facts, none of them studied or judged (see ``specific_neurons``).

    ``maps``: of how many words, for objects that take at most ``largest`` of their photo, the maps over the photo are
    judged: those of ``evidence``, and the heat of the ``heat_top`` first neurons of the methods in ``heat``. ``texts``:
    the model's own captions and annotators'. ``shares``: how much of the photo is taken away, the hottest part first.
    """

    words: NotNegative = 60
    facts: NotNegative = 60
    methods: MaybeMethods = Field(default=[], validate_default=True)
    counts: list[Positive] = list(COUNTS)
    fact_file: Text = "shipped"
    fills: list[Literal["zero", "mean"]] = ["zero", "mean"]
    positions: Literal["predicting", "all"] = "predicting"
    mean_over: Positive = 32
    others: Positive | None = None
    weights: list[NonNegative] = []
    reference: Positive = 40
    maps: NotNegative = 0
    texts: list[Literal["own", "reference"]] = ["own", "reference"]
    evidence: Kinds = []
    heat: MaybeMethods = Field(default=[], validate_default=True)
    heat_top: Positive = 50
    largest: Share = 0.6
    shares: list[Share] = [0.1, 0.2, 0.4]

    _once = field_validator("fills", "texts", "shares")(once)

    def at(self, data: str) -> Self:
        """The same recipe on other photos, or on other facts where there are no words."""
        return (
            super().at(data)
            if self.words or self.maps
            else self.model_copy(update={"fact_file": data or self.fact_file})
        )

    def load(self) -> Photos:
        """Open the folder of photos, if words of captions are asked for."""
        return super().load() if self.words or self.maps else Photos(())

    @field_validator("methods")
    @classmethod
    def _for_curves(cls, methods: list[WordMethod], info: ValidationInfo) -> list[WordMethod]:
        if not methods and (info.data.get("words") or info.data.get("facts")):
            raise ValueError("the list is empty; words and facts need a method")
        return methods

    @field_validator("heat")
    @classmethod
    def _for_maps(cls, heat: list[WordMethod], info: ValidationInfo) -> list[WordMethod]:
        if info.data.get("maps") and not heat and not info.data.get("evidence"):
            raise ValueError("the list is empty; maps need a method here or a kind of evidence")
        return heat

    @field_validator("counts")
    @classmethod
    def _rising(cls, counts: list[int]) -> list[int]:
        if not counts or sorted(set(counts)) != counts:
            raise ValueError("the numbers of neurons must rise")
        return counts
