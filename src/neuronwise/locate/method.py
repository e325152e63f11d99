"""A method of locating neurons as one object: its function, what it needs, its options, what a page says of it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from neuronwise.errors import MethodError, reason
from neuronwise.files.kinds import a
from neuronwise.registry.arguments import kinds_of, taken

if TYPE_CHECKING:
    from neuronwise.images import ImageLike
    from neuronwise.locate.positions import PositionScores
    from neuronwise.locate.scores import Scores
    from neuronwise.model import Model, Run
    from neuronwise.model.run import Target
    from neuronwise.neurons import NeuronSet

T = TypeVar("T")
Needs = Literal["run", "inpainted", "twin", "among", "photos"]
_CALLS: dict[str, str] = {
    "run": "it scores every neuron of one run",
    "inpainted": "it compares a run with its photo without the object; give inpainted=PHOTO",
    "twin": "it compares a run with another; give inpainted=PHOTO or counterfactual=PROMPT",
    "among": "it chooses among neurons of one run; use locate(..., among=found)",
    "photos": "it filters over runs and their photos without the object; use locate(..., inpainted=PHOTO or a list)",
}


@dataclass(frozen=True)
class Method:
    """One way of finding neurons; a file of this room defines one as ``METHOD`` and ``METHODS`` names it.

    ``needs`` says how ``function`` is called. What a user sets are its keyword-only parameters, or the fields of
    ``settings``, a dataclass that checks itself:

    - "run": ``function(model, run, targets, **options)`` → one ``Scores`` of every neuron for each target
    - "inpainted": ``function(model, run, targets, inpainted, **options)`` → the same, beside another photo
    - "twin": the same, where the photo may be None and an option ``counterfactual`` be given instead
    - "among": ``function(model, run, target, among, **options)`` → a ``NeuronSet``
    - "photos": ``function(model, pairs, settings, null=…, top=…)`` → a ``NeuronSet`` of as many as pass

    ``by_position`` takes the same as ``function`` and gives the scores of each target at each position, where the
    method has them; its options are the same but for how they are reduced.
    ``meaning`` completes "Score: …", with {token} for the scored token and no other braces. ``source`` is the
    publication. A ``control`` ranks by nothing. ``join`` merges the scores of several prompts of one fact, where the
    method has a way of its own.
    ``heads`` scores attention heads: ``heads(model, run, targets, **options)`` → one ``HeadScores`` for each target, or
    of a method that needs "among" ``heads(model, run, target, among, **options)`` → one, of all heads for None.
    ``records``: it reads activations where targets are predicted, which many runs record in one pass.
    An option called ``exact`` is given the number of neurons wanted, and one called ``seed`` the seed of a command.
    """

    name: str
    function: Callable[..., Any]
    meaning: str
    source: str = ""
    needs: Needs = "run"
    control: bool = False
    settings: type | None = None
    join: Callable[..., NeuronSet] | None = None
    by_position: Callable[..., Sequence[Iterable[PositionScores]]] | None = None
    heads: Callable[..., Any] | None = None
    records: bool = False

    def __post_init__(self) -> None:
        require_token(self.name, self.meaning)

    @cached_property
    def options(self) -> tuple[str, ...]:
        """The names of what a user can set."""
        if self.settings is not None:
            return tuple(field.name for field in dataclasses.fields(self.settings))
        return keywords(self.function)

    @property
    def compares(self) -> bool:
        """Whether it looks at the photo without the object."""
        return self.needs in ("inpainted", "twin", "photos")

    @property
    def scores_all(self) -> bool:
        """Whether it gives every neuron a score."""
        return self.needs in ("run", "inpainted", "twin")

    def check(self, options: Mapping[str, object]) -> dict[str, Any]:
        """The options as it takes them; raises ``MethodError`` for unknown or impossible ones."""
        fitting = options_as_taken(self.name, self.options, self.function, options)
        if self.settings is not None:
            try:
                self.settings(**fitting)
            except TypeError as error:
                raise MethodError(f"{self.name} cannot take these settings: {reason(error)}.") from error
        return fitting

    def for_top(self, top: int | None, options: Mapping[str, object]) -> dict[str, object]:
        """The options when only the ``top`` best are wanted: what need not be exact for that is bounded."""
        return {"exact": top, **options} if "exact" in self.options else dict(options)

    def score(
        self,
        model: Model,
        run: Run,
        targets: Sequence[Target],
        options: Mapping[str, object],
        inpainted: ImageLike | None = None,
    ) -> list[Scores]:
        """Scores of every neuron for each of several targets of one run, with as few passes as the method allows."""
        if not self.scores_all:
            raise self.misused()
        fitting = self.check(options)
        require_own(model, [run])
        self.record([(run, target) for target in targets], fitting)
        return self._scored(self.function(model, run, targets, *self._beside(inpainted), **fitting), len(targets))

    def _scored(self, returned: object, count: int) -> list[Scores]:
        """What ``function`` returned; raises ``MethodError`` for anything but a list of so many ``Scores``."""
        from neuronwise.locate.scores import Scores  # loads torch, which names of methods do not need

        if isinstance(returned, list) and len(returned) == count and all(
            isinstance(one, Scores) and one for one in returned
        ):  # fmt: skip
            return returned
        each = f"each of the {count} targets" if count > 1 else "the target, in a list"
        raise MethodError(f"{self.name} must return one Scores for {each}; it returned {_told(returned)}.")

    def record(self, cases: Sequence[tuple[Run, Target]], options: Mapping[str, object]) -> None:
        """Record what the method reads of several runs or targets, in as few passes as there can be."""
        if not self.records:
            return
        from neuronwise.model.recorded import record_together  # loads torch, which names of methods do not need

        wanted: dict[int, tuple[Run, list[int]]] = {}
        for run, target in cases:
            wanted.setdefault(id(run), (run, []))[1].append(target.position)
        record_together(list(wanted.values()), str(options.get("activation", "ffn")))

    def score_positions(
        self, model: Model, run: Run, target: Target, options: Mapping[str, object], inpainted: ImageLike | None = None
    ) -> Iterable[PositionScores]:
        """Scores of every neuron at each of the ``positions`` among ``options``, for one target."""
        if self.by_position is None:
            raise MethodError(f"{self.name} does not score positions apart; leave positions out.")
        for name in set(options) - set(keywords(self.by_position)):
            raise MethodError(f"{name}= says how positions are joined; leave it out where they stay apart.")
        require_own(model, [run])
        return self.by_position(model, run, [target], *self._beside(inpainted), **options)[0]

    def _beside(self, inpainted: ImageLike | None) -> list[ImageLike | None]:
        """What ``function`` takes after the targets."""
        if self.needs == "twin":
            return [inpainted]
        return [self.given(inpainted)] if self.compares else []

    def given(self, what: T | None) -> T:
        """``what`` itself, which the method needs; raises ``MethodError`` for None."""
        if what is None:
            raise self.misused()
        return what

    def misused(self) -> MethodError:
        """The error that says how the method is called."""
        return MethodError(f"{self.name} cannot be called like this: {_CALLS[self.needs]}.")


def require_token(name: str, meaning: str) -> None:
    """Raise ``MethodError`` for a meaning that holds any other field in braces than {token}."""
    try:
        fields = {field for _, field, _, _ in Formatter().parse(meaning) if field is not None} - {"token"}
    except ValueError as error:
        raise MethodError(f"The meaning of {name} cannot be read: {error}; write {{token}} for the token.") from error
    if fields:
        other = f"{{{min(fields)}}}"
        raise MethodError(f"The meaning of {name} holds {other}; only {{token}} can stand there, for the token.")


def _told(returned: object) -> str:
    """What a function returned, in words: "None", "a dict", "a list of 2 (Scores, an empty Scores)"."""
    if returned is None:
        return "None"
    if not isinstance(returned, list):
        return a(type(returned).__name__)
    kinds = (type(one).__name__ for one in returned)
    members = [
        kind if kind != "Scores" or one else "an empty Scores" for kind, one in zip(kinds, returned, strict=True)
    ]
    return f"a list of {len(returned)}" + (f" ({', '.join(members)})" if members else "")


def options_as_taken(
    name: str, known: Sequence[str], function: Callable[..., object], options: Mapping[str, object]
) -> dict[str, Any]:
    """The options as ``function`` takes them, NumPy's numbers as Python's.

    Raises ``MethodError`` for options other than the ``known`` ones, and for values of another kind than theirs.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise MethodError(f"{name} has no option {', '.join(unknown)}; it takes {', '.join(known) or 'none'}.")
    hints = kinds_of(function)
    return {name: taken(name, value, hints.get(name, object), error=MethodError) for name, value in options.items()}


def require_own(model: Model, runs: Sequence[Run]) -> None:
    """Raise ``MethodError`` for runs of another model, or recorded in another state of this one."""
    from neuronwise.model.state import state_of  # loads torch, which names of methods do not need

    now = state_of(model)
    for run in runs:
        if run.model.module is not model.module:
            raise MethodError(f"This run is of {run.model.name}; score it with the model that made it.")
        run.require_state(now)


def keywords(function: Callable[..., object]) -> tuple[str, ...]:
    """The names of a function's keyword-only parameters."""
    parameters = inspect.signature(function).parameters.items()
    return tuple(name for name, parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)
