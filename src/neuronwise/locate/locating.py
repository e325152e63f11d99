"""From a run and a word to scores and to the neurons that score highest, by any method of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, overload

from neuronwise.errors import MethodError
from neuronwise.files import versions
from neuronwise.images import ImageLike
from neuronwise.locate.baseline import Baseline
from neuronwise.locate.contrast import contrast_notes
from neuronwise.locate.heads import joined as joined_heads
from neuronwise.locate.joint import AGREE, joined
from neuronwise.locate.method import Method, keywords, options_as_taken, require_own
from neuronwise.locate.methods import METHODS
from neuronwise.locate.positions import Positions, keeps_positions, strongest
from neuronwise.locate.scores import Pair, Scores
from neuronwise.model import Model
from neuronwise.model.concepts import Concept
from neuronwise.model.modes import computes
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Heads, HeadSet, Neurons, NeuronSet

Word = str | Concept


@overload
def locate(
    model: Model,
    run: Run | Sequence[Run],
    concept: Word | Sequence[Word] | None = None,
    *,
    kind: Literal["heads"],
    among: Heads | None = None,
    **options: Any,
) -> HeadSet: ...
@overload
def locate(
    model: Model,
    run: Run | Sequence[Run],
    concept: Word | Sequence[Word] | None = None,
    *,
    kind: Literal["neurons"] = "neurons",
    among: Neurons | None = None,
    **options: Any,
) -> NeuronSet: ...
@computes
def locate(
    model: Model,
    run: Run | Sequence[Run],
    concept: Word | Sequence[Word] | None = None,
    *,
    kind: Literal["neurons", "heads"] = "neurons",
    target: str | int | None = None,
    method: str = "contribution",
    top: int | None = 100,
    position: int | None = None,
    occurrence: int = 0,
    agree: str | None = None,
    among: Neurons | Heads | None = None,
    inpainted: ImageLike | Sequence[ImageLike] | None = None,
    null: Sequence[Pair] = (),
    positions: Positions | None = None,
    **options: object,
) -> NeuronSet | HeadSet:
    """The ``top`` neurons (all for None) for a concept of the run's text, or for any target token.

    ``method`` is a name of ``METHODS`` and ``options`` are its own. ``kind="heads"`` ranks attention heads: by
    contribution (exact shares of the logit) or by causal_effect, which without ``among`` tries all. ``among``: what
    causal_effect ranks and random_same_layers follows. ``inpainted``: the photo without the object, one for each of
    several runs, for methods that compare two; two_stage may find fewer than ``top``, and takes ``null``.
    ``positions``: a number (or several; prompt and generated tokens count from 0), "image" or "all" for neurons at
    positions, such as L23.U8083@14.

    Several runs are photos that say the same word (several words, one for each run, stand for one concept that the
    texts name differently), or prompts of one fact. ``agree="mean"``: by their mean score over the runs (0 where a run
    did not use a routed expert). ``agree="vote"``: by how many runs have them among their own ``top``, equal votes by
    the mean score; the score is then votes / runs (our choices, after Sato & Takagi 2025). By default the mean, or the
    method's own way: integrated_gradients keeps what the prompts share. Raises ``MethodError`` and ``TargetError``.
    """
    _require(model, runs := [run] if isinstance(run, Run) else list(run), agree)
    options |= {} if positions is None else {"positions": positions}
    chosen = METHODS[method]
    targets = _targets(runs, concept, target, position, occurrence)
    if kind == "heads":
        return _heads(model, runs, targets, chosen, top, agree, among, options, inpainted is not None or null)
    joining = keywords(chosen.join) if chosen.join and agree is None and not isinstance(run, Run) else ()
    options |= (own := chosen.check({name: value for name, value in options.items() if name not in joining}))
    cases = list(zip(runs, targets, _one_each(inpainted, len(runs)), strict=True))
    if chosen.needs == "among":
        if among is None or len(runs) > 1:
            raise chosen.misused()
        found = chosen.function(model, runs[0], targets[0], NeuronSet.of(cast(Neurons, among)), **own)[:top]
    elif chosen.needs == "photos":
        pairs = [(r, t, chosen.given(photo)) for r, t, photo in cases]
        found = chosen.function(model, pairs, chosen.given(chosen.settings)(**own), null=null, top=top)
    elif chosen.by_position is not None and keeps_positions(positions):
        found = strongest(chosen.score_positions(model, _only(runs), targets[0], own, cases[0][2]), top)
    elif joining:
        scored = _scored(model, cases, chosen, own)
        found = chosen.given(chosen.join)(scored, **{n: options[n] for n in joining if n in options})[:top]
    else:
        scored = _scored(model, cases, chosen, chosen.for_top(top, own))
        found = scored[0].top(top) if isinstance(run, Run) else joined(scored, agree or "mean", top)
    record = {**describe(model, runs[0], targets[0], method, options), **found.record, "method": method}
    several = {} if isinstance(run, Run) and chosen.needs != "photos" else _several(runs)
    return NeuronSet(found.members, record | several)


def _scored(
    model: Model, cases: Sequence[tuple[Run, Target, ImageLike | None]], method: Method, options: Mapping[str, object]
) -> list[Scores]:
    method.record([(run, target) for run, target, _ in cases], options)
    return [method.score(model, run, [target], options, photo)[0] for run, target, photo in cases]


def _heads(
    model: Model,
    runs: Sequence[Run],
    targets: Sequence[Target],
    method: Method,
    top: int | None,
    agree: str | None,
    among: Neurons | Heads | None,
    options: Mapping[str, object],
    photos: object,
) -> HeadSet:
    if photos:
        raise MethodError("Heads are scored in runs as they are; leave inpainted and null out.")
    scoring = method.heads
    if scoring is None:
        known = ", ".join(name for name, one in METHODS.items() if one.heads is not None)
        raise MethodError(f"{method.name} does not score attention heads; use one of {known}.")
    own = options_as_taken(f"{method.name} of heads", keywords(scoring), scoring, options)
    cases = list(zip(runs, targets, strict=True))
    if method.needs == "among":
        scored = [scoring(model, r, t, among, **own) for r, t in cases]
    else:
        if among is not None:
            raise MethodError(f"{method.name} scores all heads; leave among out.")
        scored = [scoring(model, r, [t], **own)[0] for r, t in cases]
    found = scored[0].top(top) if len(runs) == 1 else joined_heads(scored, agree or "mean", top)
    record = {**describe(model, runs[0], targets[0], method.name, own), "kind": "heads", **found.record}
    notes = [*([record["note"]] if "note" in record else []), *scored[0].notes]
    record |= ({"note": " ".join(notes)} if notes else {}) | (_several(runs) if len(runs) > 1 else {})
    return HeadSet(found.members, record)


def _several(runs: Sequence[Run]) -> dict[str, Any]:
    """What a record says of runs that were looked at together."""
    return {f"{name}s": [getattr(one, name) for one in runs] for name in ("prompt", "file", "text")}


@computes
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
    **options: object,
) -> Scores:
    """The scores of every neuron for a concept of the run's text, or for any target token, as ``locate`` ranks them."""
    wanted = run.target(concept, target, position, occurrence)
    return METHODS[method].score(model, run, [wanted], options, inpainted)[0]


def score_all(
    model: Model,
    run: Run,
    targets: Sequence[Target],
    method: str,
    *,
    inpainted: ImageLike | None = None,
    **options: object,
) -> list[Scores]:
    """Scores of every neuron for each of several targets of one run, with as few passes as the method allows."""
    return METHODS[method].score(model, run, targets, options, inpainted)


def describe(model: Model, run: Run, target: Target, method: str, options: Mapping[str, object]) -> dict[str, Any]:
    """The record that a result carries: enough to make it again."""
    record: dict[str, Any] = {
        "method": method,
        "options": {name: plain(value) for name, value in options.items()},
        "activation": options.get("activation", "ffn"),
        "target": target.text,
        "token_id": target.token_id,
        "position": target.position if run.output_ids else None,
        "model": model.name,
        "prompt": run.prompt,
        "rendered": run.rendered,
        **run.prompted.ask.record,
        "file": run.file,
        "chat": run.chat,
        "text": run.text,
        "versions": versions(),
    }
    notes = [*filter(None, (run.prompted.note, target.note)), *contrast_notes(model, options.get("contrast"))]
    if notes:
        record["note"] = " ".join(notes)
    return record


def plain(option: object) -> object:
    """An option of a method as a plain JSON value."""
    return dict(option.record) if isinstance(option, Baseline) else option


def _require(model: Model, runs: Sequence[Run], agree: str | None) -> None:
    require_own(model, runs)
    if not runs:
        raise MethodError("Give one run or more.")
    if agree not in (None, *AGREE):
        raise MethodError(f"agree={agree!r} is unknown; choose {' or '.join(AGREE)}.")


def _only(runs: Sequence[Run]) -> Run:
    if len(runs) > 1:
        raise MethodError("Positions of several runs are not the same places; use positions= with one run.")
    return runs[0]


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
