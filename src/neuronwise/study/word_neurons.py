"""The neurons that a recipe's methods find for one word of one run: a word of a caption, or the answer to a text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, field_validator

from neuronwise.errors import MethodError
from neuronwise.images import ImageLike
from neuronwise.locate import METHODS, locate
from neuronwise.locate.method import Method as Locating
from neuronwise.model.run import Run, Target
from neuronwise.neurons import NeuronSet
from neuronwise.study.entries import Count, Options, named
from neuronwise.study.methods import Method, checked

AMONG = 200  # neurons that causal_effect ranks anew: each costs a pass


class WordMethod(Method):
    """As ``Method``, and besides methods that rank another's neurons, such as causal_effect.

    ``like``: of random_same_layers the method whose layers it takes, of causal_effect the one whose best it ranks anew
    (option ``among``: how many). Each word is looked at by itself, so ``agree`` and ``K`` are refused.
    """

    @classmethod
    def able(cls, method: Locating) -> bool:
        """Whether the study can use a method."""
        return True

    @classmethod
    def require(cls, method: str, options: Options) -> None:
        """As ``Method.require``, and for what needs several photos."""
        locating = METHODS[method]
        ranks = locating.needs == "among" and not locating.control
        super().require(method, {n: value for n, value in options.items() if not (ranks and n == "among")})
        if locating.needs == "photos" and "null" in options.values():
            raise ValueError('thresholds "null" need photos without the concept; here each word is looked at by itself')

    @field_validator("K", "agree")
    @classmethod
    def _for_several(cls, given: list[Count] | str | None) -> list[Count] | str | None:
        if given not in (None, "mean"):
            raise ValueError("it is for neurons that several photos share; here each word is looked at by itself")
        return given

    @property
    def ranks(self) -> bool:
        """Whether it ranks another method's neurons anew."""
        return self.chooses and not self.locating.control

    @property
    def needs_photo(self) -> bool:
        """Whether it looks at image tokens, or compares with a photo without the object."""
        return self.compares or self.options.get("positions") == "image"


WordMethods: TypeAlias = Annotated[list[WordMethod], named(WordMethod.key), AfterValidator(checked)]


@dataclass(frozen=True)
class TimedNeurons:
    """What one method found, and the CPU seconds that it took: the run itself and inpainting left out, the choice of
    the neurons that causal_effect ranks anew included."""

    neurons: NeuronSet
    seconds: float


def word_neurons(
    run: Run,
    target: Target,
    methods: Sequence[WordMethod],
    top: int,
    *,
    concept: str | None = None,
    inpainted: ImageLike | None = None,
    seed: int = 0,
) -> dict[str, TimedNeurons]:
    """The ``top`` neurons of every method for one word, by the methods' names; ``methods`` without sweeps.

    ``concept``: the word as the caption says it, for runs that said it. Methods that look at a photo are left out
    where the run has none, those that compare also without ``inpainted``. ``seed`` draws the random ones.
    """
    run.activations(target.position)  # as a run that was recorded while it generated has them
    where: Options = {"target": target.token_id, "position": target.position}
    if concept is not None:
        where = {"concept": concept}
    found: dict[str, TimedNeurons] = {}
    for method in sorted(methods, key=lambda method: method.chooses):
        if (method.needs_photo and run.image is None) or (method.compares and inpainted is None):
            continue
        options = dict(method.options)
        if "seed" in method.locating.options:
            options["seed"] = seed + options.get("seed", 0)
        if method.compares:
            options["inpainted"] = inpainted
        among, like = None, ""
        if method.chooses:
            names = [m.called for m in methods if m.called in found and not (m.chooses or m.locating.control)]
            if not names:
                continue
            like = method.like if method.like in found else names[0]
            assert like is not None
            among = found[like].neurons
        start = time.process_time()
        if method.ranks:
            among = among[: options.pop("among", AMONG)] if among is not None else None
        neurons = _located(run, where, method, top, among, options)
        seconds = time.process_time() - start + (found[like].seconds if method.ranks else 0.0)
        found[method.called] = TimedNeurons(neurons, seconds)
    return {method.called: found[method.called] for method in methods if method.called in found}


def _located(
    run: Run, where: Options, method: WordMethod, top: int, among: NeuronSet | None, options: Options
) -> NeuronSet:
    """A control of fewer neurons where a layer has too few others for all."""
    if among is not None and not len(among):
        return NeuronSet()
    while True:
        try:
            return locate(run.model, run, method=method.method, top=top, among=among, **where, **options)
        except MethodError:
            if not method.locating.control or among is None or len(among) < 2:
                raise
            among = among[: len(among) // 2]
