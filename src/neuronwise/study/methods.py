"""The methods that a recipe names, and the neurons that each finds for a concept on several photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationInfo, field_validator

from neuronwise.data.photos import Captioned
from neuronwise.errors import ImageError, MethodError
from neuronwise.locate import METHODS, locate
from neuronwise.locate.activation_difference import on_another_photo
from neuronwise.locate.method import Method as Locating
from neuronwise.locate.scores import Pair
from neuronwise.neurons import NeuronSet
from neuronwise.study.concept_photos import ConceptPhotos
from neuronwise.study.entries import Count, Options, Sweep, combinations, each, name_of, named
from neuronwise.study.recipe_fields import STRICT, Text, once
from neuronwise.study.workspace import Workspace


class Method(BaseModel):
    """One method with its options. ``name``: how the tables call it; ``agree``: as of ``locate``.

    ``like``: the name of the method whose neurons ``random_same_layers`` stands beside. ``K``: other numbers of neurons
    than the recipe's. ``sweep``: options with several values each; every combination is a method of its own.
    """

    model_config = STRICT
    key: ClassVar[str] = "method"
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
        """Its name in tables."""
        return name_of(self)

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


def checked(methods: list[M]) -> list[M]:
    """The list itself; raises ``ValueError`` for names that are there twice and for a ``like`` that is not there."""
    listed = each(methods)
    once([method.called for method in listed])
    direct = {method.called: method for method in listed if not method.chooses}
    for method in methods:
        if method.like is not None and (not method.chooses or method.like not in direct):
            raise ValueError(
                f"like={method.like!r} must name one of the methods that find neurons by themselves, and only a method "
                "that chooses by another's takes it"
            )
        if method.chooses and all(one.locating.control for one in direct.values()):
            raise ValueError(f"{method.method} chooses by another method's neurons; name one more method")
    return methods


Methods: TypeAlias = Annotated[list[Method], named(Method.key), AfterValidator(checked)]


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
        options.setdefault("seed", workspace.seed(shown.name))
    inpainted = [workspace.inpainted(photo, shown.name) for photo in found_on] if method.compares else None
    null: list[Pair] = []
    if method.filters and inpainted and "null" in options.values():
        null = null_pairs(workspace, shown.name, (runs[0], runs[0].target(words[0]), inpainted[0]), nothing)
    agree = None if method.filters else method.agree
    return locate(
        workspace.model, runs, words, method=method.method, top=top, agree=agree, inpainted=inpainted, null=null,
        **options,
    )  # fmt: skip


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
