"""The methods that a recipe names, and the neurons that each finds for a concept on several photos."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationInfo, field_validator

from neuronwise.data.photos import Captioned
from neuronwise.errors import ImageError, MethodError
from neuronwise.locate import METHODS, locate
from neuronwise.locate.activation_difference import on_another_photo
from neuronwise.locate.controls import random_same_layers
from neuronwise.locate.method import Method as Locating
from neuronwise.locate.scores import Pair
from neuronwise.neurons import NeuronSet
from neuronwise.study.concept_photos import ConceptPhotos
from neuronwise.study.recipe_fields import STRICT, Positive, Text, once
from neuronwise.study.workspace import Workspace

FOUND = "found"  # in place of a number: as many as a filter found
Count = Positive | Literal["found"]
Options: TypeAlias = dict[str, Any]
Sweep: TypeAlias = dict[str, list[Any]]


class Method(BaseModel):
    """One method with its options. ``name``: how the tables call it; ``agree``: as of ``locate``.

    ``like``: the name of the method whose layers ``random_same_layers`` takes. ``K``: other numbers of neurons than the
    recipe's. ``sweep``: options with several values each; every combination is a method of its own.
    """

    model_config = STRICT
    method: Text
    name: Text | None = None
    options: Options = {}
    sweep: Sweep = {}
    agree: Literal["mean", "vote"] = "mean"
    like: Text | None = None
    K: list[Count] | None = None

    @classmethod
    def able(cls, method: Locating) -> bool:
        """Whether the method can find the neurons that several photos share."""
        return method.needs != "among" or method.control

    @classmethod
    def require(cls, method: str, options: Options) -> None:
        """Raise ``ValueError`` for options that the method does not have, and for settings that are impossible."""
        try:
            METHODS[method].check(options)
        except MethodError as error:
            raise ValueError(str(error)) from error

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        names = [name for name, one in METHODS.items() if cls.able(one)]
        if method not in names:
            raise ValueError(f"there is no method {method!r}; there are {', '.join(names)}")
        return method

    @field_validator("options")
    @classmethod
    def _fitting(cls, options: Options, info: ValidationInfo) -> Options:
        if "method" in info.data:
            cls.require(info.data["method"], options)
        return options

    @field_validator("sweep")
    @classmethod
    def _all_fitting(cls, sweep: Sweep, info: ValidationInfo) -> Sweep:
        for chosen in combinations(sweep) if "method" in info.data else ():
            cls.require(info.data["method"], chosen)
        return sweep

    @field_validator("K")
    @classmethod
    def _each_once(cls, counts: list[Count] | None) -> list[Count] | None:
        return None if counts is None else once(counts)

    @property
    def called(self) -> str:
        """Its name in tables: the given one, or the method's with what is not default."""
        if self.name:
            return self.name
        return " ".join([self.method, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def locating(self) -> Locating:
        """The method itself."""
        return METHODS[self.method]

    @property
    def filters(self) -> bool:
        """Whether the method itself decides how many neurons it finds."""
        return self.locating.needs == "photos"

    @property
    def compares(self) -> bool:
        """Whether it looks at photos without the object."""
        return self.locating.compares

    @property
    def chooses(self) -> bool:
        """Whether it chooses by another method's neurons."""
        return self.locating.needs == "among"


M = TypeVar("M", bound=Method)


def combinations(sweep: Sweep) -> list[Options]:
    """Every combination of swept values, as options."""
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def each(methods: Sequence[M]) -> list[M]:
    """The methods with every sweep written out."""
    found = []
    for method in methods:
        for chosen in combinations(method.sweep):
            name = method.name
            if name and chosen:
                name = " ".join([name, *(f"{key}={value}" for key, value in chosen.items())])
            found.append(method.model_copy(update={"options": {**method.options, **chosen}, "sweep": {}, "name": name}))
    return found


def as_methods(listed: object) -> object:
    """Names in place of whole entries, as a recipe may write them."""
    return [{"method": one} if isinstance(one, str) else one for one in listed] if isinstance(listed, list) else listed


def checked(methods: list[Method]) -> list[Method]:
    """The list itself; raises ``ValueError`` for names that are there twice and for a ``like`` that is not there."""
    called = once([method.called for method in each(methods)])
    for method in methods:
        if method.like is not None and (not method.chooses or method.like not in called):
            raise ValueError(f"like={method.like!r} must name one of the methods, and only random_same_layers takes it")
    if methods and all(method.chooses for method in methods):
        raise ValueError(f"{methods[0].method} takes the layers of another method's neurons; name one more method")
    return methods


def concept_neurons(
    workspace: Workspace,
    shown: ConceptPhotos,
    found_on: Sequence[Captioned],
    method: Method,
    top: int | None,
    nothing: int,
) -> NeuronSet:
    """The ``top`` neurons (all that a filter lets through for None) for a concept by what photos ``found_on`` show.

    ``nothing``: photos without the concept, for thresholds "null". Not for methods that choose by another's neurons.
    """
    runs = [workspace.run(photo) for photo in found_on]
    words = [shown.word(photo) for photo in found_on]
    options = dict(method.options)
    if "seed" in method.locating.options:
        options.setdefault("seed", seed_of(workspace, shown.name))
    inpainted = [workspace.inpainted(photo, shown.name) for photo in found_on] if method.compares else None
    null: list[Pair] = []
    if method.filters and inpainted and "null" in options.values():
        null = null_pairs(workspace, shown.name, (runs[0], runs[0].target(words[0]), inpainted[0]), nothing)
    agree = None if method.filters else method.agree
    return locate(
        workspace.model,
        runs,
        words,
        method=method.method,
        top=top,
        agree=agree,
        inpainted=inpainted,
        null=null,
        **options,
    )


def null_pairs(workspace: Workspace, concept: str, like: Pair, count: int) -> list[Pair]:
    """Photos without the concept, read with the output of ``like`` forced, and an object of theirs taken out.

    Photos that make another prompt than ``like`` (other sizes, in some models) are left out.
    """
    run, target, _ = like
    found: list[Pair] = []
    for photo in workspace.without(concept, len(workspace.photos), "null"):
        for category in sorted(photo.categories()):
            try:
                inpainted = workspace.inpainted(photo, category)
                found.append((on_another_photo(workspace.model, run, photo.path), target, inpainted))
                break
            except (MethodError, ImageError):
                continue
        if len(found) == count:
            break
    return found


def controls(workspace: Workspace, shown: ConceptPhotos, like: NeuronSet, options: Options) -> NeuronSet:
    """As many random neurons of the same layers."""
    return random_same_layers(workspace.model, like, seed=options.get("seed", seed_of(workspace, shown.name)))


def seed_of(workspace: Workspace, concept: str) -> int:
    """A seed for a concept's random neurons, the same on every machine."""
    return workspace.recipe.seed + zlib.crc32(concept.encode())
