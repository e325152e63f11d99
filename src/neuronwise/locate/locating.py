"""From a run and a word to scores and to the neurons that score highest, by any method of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from neuronwise.errors import MethodError
from neuronwise.files import versions
from neuronwise.images import ImageLike
from neuronwise.locate.joint import joined
from neuronwise.locate.method import Method, keywords
from neuronwise.locate.methods import METHODS
from neuronwise.locate.scores import Pair, Scores
from neuronwise.model.concepts import Concept
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Neurons, NeuronSet

if TYPE_CHECKING:
    from neuronwise.model import Model

Word = str | Concept


def locate(
    model: Model,
    run: Run | Sequence[Run],
    concept: Word | Sequence[Word] | None = None,
    *,
    target: str | int | None = None,
    method: str = "contribution",
    top: int | None = 100,
    position: int | None = None,
    occurrence: int = 0,
    agree: str | None = None,
    among: Neurons | None = None,
    inpainted: ImageLike | Sequence[ImageLike] | None = None,
    null: Sequence[Pair] = (),
    **options: Any,
) -> NeuronSet:
    """The ``top`` neurons (all for None) for a concept of the run's text, or for any target token.

    ``method`` is a name of ``METHODS`` and ``options`` are its own. ``among``: the neurons that causal_effect ranks and
    random_same_layers follows. ``inpainted``: the photo without the object, one for each of several runs, for
    activation_difference and two_stage; two_stage may find fewer than ``top``, and takes ``null``.

    Several runs are photos that say the same word (several words, one for each run, stand for one concept that the
    texts name differently), or prompts of one fact. ``agree="mean"``: by the mean of their scores over the runs (a
    routed expert that a run did not use counts 0 there). ``agree="vote"``: by the number of runs that have them among
    their own ``top``, equal votes by the mean score; the score is then votes / runs (our choices, after the vote over
    images of Sato & Takagi 2025). By default the mean, or the method's own way: integrated_gradients keeps the neurons
    that the prompts share. Raises ``MethodError`` and ``TargetError``.
    """
    runs = [run] if isinstance(run, Run) else list(run)
    if not runs:
        raise MethodError("Give one run or more.")
    if agree not in (None, "mean", "vote"):
        raise MethodError(f"agree={agree!r} is unknown; choose mean or vote.")
    chosen = METHODS[method]
    join = chosen.join if agree is None and not isinstance(run, Run) else None
    joining = {name: value for name, value in options.items() if join is not None and name in keywords(join)}
    own = {name: value for name, value in options.items() if name not in joining}
    chosen.check(own)
    targets = _targets(runs, concept, target, position, occurrence)
    cases = _Cases(model, chosen, runs, targets, _one_each(inpainted, len(runs)))
    record = describe(model, runs[0], targets[0], method, options)
    if chosen.needs == "photos":
        found = cases.filter(null, top, own)
        record["texts"] = cases.texts
    elif chosen.needs == "among":
        found = cases.choose(among, own)[:top]
    elif isinstance(run, Run):
        return cases.score(chosen.for_top(top, own))[0].top(top, record)
    elif join is not None:
        found = join(cases.score(own), **joining)
        record["prompts"] = [one.prompt for one in runs]
    else:
        found = joined(cases.score(chosen.for_top(top, own)), agree or "mean", top)
        record |= {"agree": agree or "mean", "top": top, "texts": cases.texts}
    return NeuronSet(found.members, {**record, **found.record, "method": method})


@dataclass(frozen=True)
class _Cases:
    """Runs, the target in each of them, and its photo without the object."""

    model: Model
    method: Method
    runs: list[Run]
    targets: list[Target]
    photos: list[ImageLike | None]

    @property
    def texts(self) -> list[str]:
        return [run.text for run in self.runs]

    def score(self, options: Mapping[str, Any]) -> list[Scores]:
        cases = zip(self.runs, self.targets, self.photos, strict=True)
        return [self.method.score(self.model, run, [t], inpainted=photo, **options)[0] for run, t, photo in cases]

    def filter(self, null: Sequence[Pair], top: int | None, options: Mapping[str, Any]) -> NeuronSet:
        cases = zip(self.runs, self.targets, self.photos, strict=True)
        pairs = [(run, target, self.method.given(photo)) for run, target, photo in cases]
        return self.method.filter(self.model, pairs, null, top, **options)

    def choose(self, among: Neurons | None, options: Mapping[str, Any]) -> NeuronSet:
        if len(self.runs) > 1:
            raise MethodError(f"method='{self.method.name}' looks at one run; give one.")
        neurons = None if among is None else NeuronSet.of(among)
        return self.method.choose(self.model, self.runs[0], self.targets[0], neurons, **options)


def scores(
    model: Model,
    run: Run,
    concept: Word | None = None,
    *,
    target: str | int | None = None,
    method: str = "contribution",
    position: int | None = None,
    occurrence: int = 0,
    inpainted: ImageLike | None = None,
    **options: Any,
) -> Scores:
    """The scores of every neuron for a concept of the run's text, or for any target token, as ``locate`` ranks them."""
    wanted = run.target(concept, target, position, occurrence)
    return METHODS[method].score(model, run, [wanted], inpainted=inpainted, **options)[0]


def score_all(model: Model, run: Run, targets: Sequence[Target], method: str, **options: Any) -> list[Scores]:
    """Scores of every neuron for each of several targets of one run, with as few passes as the method allows."""
    return METHODS[method].score(model, run, targets, **options)


def describe(model: Model, run: Run, target: Target, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The record that a result carries: enough to make it again."""
    record: dict[str, Any] = {
        "method": method,
        "options": dict(options),
        "activation": options.get("activation", "ffn"),
        "target": target.text,
        "token_id": target.token_id,
        "position": target.position if run.output_ids else None,
        "model": model.name,
        "prompt": run.prompt,
        "chat": run.chat,
        "text": run.text,
        "versions": versions(),
    }
    if target.note:
        record["note"] = target.note
    return record


def _targets(
    runs: Sequence[Run],
    concept: Word | Sequence[Word] | None,
    target: str | int | None,
    position: int | None,
    occurrence: int,
) -> list[Target]:
    words = [concept] * len(runs) if concept is None or isinstance(concept, Word) else list(concept)
    if len(words) != len(runs):
        raise MethodError(f"There are {len(words)} words for {len(runs)} runs; give one word, or one for each run.")
    return [run.target(word, target, position, occurrence) for run, word in zip(runs, words, strict=True)]


def _one_each(inpainted: ImageLike | Sequence[ImageLike] | None, runs: int) -> list[ImageLike | None]:
    if inpainted is None:
        return [None] * runs
    photos = cast("list[ImageLike | None]", [*inpainted] if isinstance(inpainted, list | tuple) else [inpainted])
    if len(photos) != runs:
        raise MethodError(f"There are {len(photos)} inpainted photos for {runs} run(s); give one for each.")
    return photos
