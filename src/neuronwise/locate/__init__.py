"""Locating neurons: one small file for each scoring method, and the table of their names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from neuronwise.errors import MethodError
from neuronwise.files import versions
from neuronwise.locate.activation import activation
from neuronwise.locate.activation_difference import activation_difference
from neuronwise.locate.causal_effect import causal_effect
from neuronwise.locate.contribution import contribution
from neuronwise.locate.controls import random, random_same_layers
from neuronwise.locate.gradient import gradient, gradient_activation
from neuronwise.locate.integrated_gradients import integrated_gradients, refine
from neuronwise.locate.log_prob_increase import log_prob_increase
from neuronwise.locate.scores import Scores
from neuronwise.locate.two_stage import TwoStage, two_stage
from neuronwise.model.concepts import Concept
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Neuron, NeuronSet

if TYPE_CHECKING:
    from neuronwise.model import Model

METHODS: dict[str, Callable[..., list[Scores]]] = {
    "contribution": contribution,
    "log_prob_increase": log_prob_increase,
    "gradient_activation": gradient_activation,
    "gradient": gradient,
    "integrated_gradients": integrated_gradients,
    "activation": activation,
    "random": random,
}
# These compare a run with its photo without the object (``inpainted=``).
COMPARING: dict[str, Callable[..., list[Scores]]] = {"activation_difference": activation_difference}
# These choose among neurons that are given to them (``among=``) instead of scoring all.
SHORTLIST_METHODS = ("causal_effect", "random_same_layers")
# This one filters instead of ranking all: how many neurons it finds is its own affair.
TWO_STAGE = "two_stage"


def locate(
    model: Model,
    run: Run | Sequence[Run],
    concept: str | Concept | None = None,
    *,
    target: str | int | None = None,
    method: str = "contribution",
    top: int = 100,
    position: int | None = None,
    occurrence: int = 0,
    among: NeuronSet | Sequence[Neuron | str] | None = None,
    **options: Any,
) -> NeuronSet:
    """The ``top`` neurons for a concept of the run's text, or for any target token.

    ``method`` is a name of ``METHODS``, or ``causal_effect`` / ``random_same_layers`` with ``among`` another set;
    ``options`` are that method's own. Several runs (prompts of one fact) with ``integrated_gradients`` are refined to
    the neurons they share. ``two_stage`` takes ``inpainted``, the photo without the object (one for each of several
    runs), ``null`` and the fields of ``TwoStage``; it may find fewer than ``top``. Raises ``MethodError`` and
    ``TargetError``.
    """
    if method == TWO_STAGE:
        return _filtered(
            model, [run] if isinstance(run, Run) else run, concept, target, position, occurrence, top, options
        )
    if not isinstance(run, Run):
        return _refined(model, run, target, method, position, options)
    wanted = run.target(concept, target, position, occurrence)
    record = describe(model, run, wanted, method, options)
    if method in SHORTLIST_METHODS:
        if among is None:
            raise MethodError(f"method='{method}' chooses among neurons; give it a set: among=found.")
        _check_options(method, SHORTLIST[method], options)
        among = among if isinstance(among, NeuronSet) else NeuronSet.of(among)
        if method == "random_same_layers":
            found = random_same_layers(model, among, **options)
        else:
            found = causal_effect(model, run, wanted, among, **options)
        return NeuronSet(found.members[:top], {**record, **found.record, "method": method})
    return score_all(model, run, [wanted], method, **for_top(method, top, options))[0].top(top, record)


SHORTLIST: dict[str, Callable[..., NeuronSet]] = {
    "causal_effect": causal_effect,
    "random_same_layers": random_same_layers,
}


def score_all(model: Model, run: Run, targets: Sequence[Target], method: str, **options: Any) -> list[Scores]:
    """Scores of every neuron for each of several targets of one run, with as few passes as the method allows."""
    scoring = {**METHODS, **COMPARING}
    if method not in scoring:
        known = ", ".join([*scoring, TWO_STAGE, *SHORTLIST_METHODS])
        raise MethodError(f"There is no method '{method}'; the methods are {known}.")
    _check_options(method, scoring[method], options)
    if run.model.module is not model.module:
        raise MethodError(f"This run is of {run.model.name}; score it with the model that made it.")
    return scoring[method](model, run, targets, **options)


def for_top(method: str, top: int, options: dict[str, Any]) -> dict[str, Any]:
    """A method's options when only its ``top`` best are wanted: what need not be exact for that is bounded."""
    return {"exact": top, **options} if method == "log_prob_increase" else options


def describe(model: Model, run: Run, target: Target, method: str, options: dict[str, Any]) -> dict[str, Any]:
    """The record that a result carries: enough to make it again."""
    record: dict[str, Any] = {
        "method": method,
        "options": {name: value for name, value in options.items() if not isinstance(value, NeuronSet)},
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


def _refined(
    model: Model,
    runs: Sequence[Run],
    target: str | int | None,
    method: str,
    position: int | None,
    options: dict[str, Any],
) -> NeuronSet:
    if method != "integrated_gradients":
        raise MethodError(f"Several runs are refined by method='integrated_gradients' only, not by '{method}'.")
    if not runs:
        raise MethodError("Give one run or more.")
    refining = {"coarse", "share", "step", "at_most", "at_least"}
    own = {name: value for name, value in options.items() if name not in refining}
    scores = [score_all(model, run, [run.target(None, target, position)], method, **own)[0] for run in runs]
    found = refine(scores, **{name: value for name, value in options.items() if name in refining})
    record = describe(model, runs[0], runs[0].target(None, target, position), method, options)
    return NeuronSet(found.members, {**record, **found.record, "prompts": [run.prompt for run in runs]})


def _filtered(
    model: Model,
    runs: Sequence[Run],
    concept: str | Concept | None,
    target: str | int | None,
    position: int | None,
    occurrence: int,
    top: int,
    options: dict[str, Any],
) -> NeuronSet:
    own = {name: value for name, value in options.items() if name not in ("inpainted", "null")}
    unknown = sorted(set(own) - set(TwoStage.__dataclass_fields__))
    if unknown:
        known = ", ".join(["inpainted", "null", *TwoStage.__dataclass_fields__])
        raise MethodError(f"method='two_stage' has no option {', '.join(unknown)}; it takes {known}.")
    inpainted = options.get("inpainted")
    photos: list[Any] = list(inpainted) if isinstance(inpainted, list | tuple) else [inpainted]
    if inpainted is None or len(photos) != len(runs):
        raise MethodError("two_stage compares each run with its photo without the object: inpainted=PHOTO, or a list.")
    targets = [run.target(concept, target, position, occurrence) for run in runs]
    record = describe(model, runs[0], targets[0], TWO_STAGE, own)
    record["texts"] = [run.text for run in runs]
    pairs = list(zip(runs, targets, photos, strict=True))
    return two_stage(model, pairs, TwoStage(**own), null=options.get("null", ()), top=top, record=record)


def _check_options(method: str, function: Callable[..., Any], options: dict[str, Any]) -> None:
    known = [n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY]
    unknown = [name for name in options if name not in known]
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise MethodError(f"method='{method}' has no option {', '.join(unknown)}; {takes}.")


__all__ = [
    "COMPARING", "METHODS", "SHORTLIST_METHODS", "TWO_STAGE", "Scores", "TwoStage", "describe", "for_top", "locate",
    "refine", "score_all", "two_stage",
]  # fmt: skip
