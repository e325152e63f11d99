"""FiNE: a fact corrected by the few neurons that contribute most to what the model says now ([FiNE] §4).

A fact's way: ``Request`` (the fact as the model reads it) → ``choose`` (its neurons) → ``Change`` (their Δ, learned by
``optimize``) → ``Edit``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from neuronwise.answers.request import listed, requests, taught
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.fine.change import Change
from neuronwise.edit.fine.neurons import choose, observe
from neuronwise.edit.fine.optimize import optimize
from neuronwise.edit.fine.request import Batch, Request, side_by_side
from neuronwise.edit.fine.settings import PRESETS, FineSettings
from neuronwise.edit.fine.specific import SpecificSettings, fine_specific
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.edit.presets import resolved
from neuronwise.edit.record import edited
from neuronwise.edit.trial import lowest_layer
from neuronwise.edit.verdict import Aim
from neuronwise.errors import MethodError
from neuronwise.images import ImageLike
from neuronwise.model.lock import alone
from neuronwise.model.model import Model

TOGETHER = 8  # requests that pass the model side by side
RECIPES = ("published", "specific")
BANDS = 3  # requests pass together when the lowest layers they change lie in the same third of the model


@alone
def fine(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: FineSettings | SpecificSettings | None = None,
    *,
    recipe: str = "published",
    image: ImageLike | None = None,
    together: int = TOGETHER,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """An edit that makes ``model`` complete each fact's prompt by its new target; the model is left as it is.

    Several facts are learned each by itself, on the unedited model, and their deltas added, as the published code
    does; ``together`` is how many pass the model side by side, which changes the time and not the result. ``image``
    asks together with a photo. ``changes`` are single settings, such as ``n=10``; without ``settings`` the preset for
    the model's family holds. The record says how many steps were taken and the probability that each target token
    reached, one list for each fact.

    ``recipe="specific"`` (ours) goes another way, that of ``fine_specific``, whose settings ``changes`` then are and
    which alone takes ``statistics``. Raises ``NonFiniteError`` for a loss that is not finite, and ``MethodError`` for
    an unknown recipe and for settings that leave no neuron to edit.
    """
    facts = listed(facts)
    if recipe not in RECIPES:
        raise MethodError(f"recipe={recipe!r} is unknown; choose {' or '.join(RECIPES)}.")
    if isinstance(settings, SpecificSettings) or (recipe == "specific" and settings is None):
        if image is not None:
            facts = [replace(fact, image=str(image)) for fact in facts]  # refused there in a sentence
        return fine_specific(model, facts, settings, statistics=statistics, **changes)
    if recipe == "specific":
        raise MethodError("recipe='specific' takes SpecificSettings; these are settings of the published recipe.")
    if statistics is not None:
        raise MethodError("The published recipe uses no key statistics; leave them out or choose recipe='specific'.")
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, facts, image)
    learned = _learned(model, facts, settings, image, together)
    if len(learned) == 1:
        return _edit(model, learned[0], settings, image)
    outcomes = [_outcome(change) for change in learned]
    reported = dict.fromkeys(name for one in outcomes for name in one)
    outcome: dict[str, object] = {name: [one.get(name) for one in outcomes] for name in reported}
    outcome["deltas_of"] = [len(change.deltas) for change in learned]
    deltas = [delta for change in learned for delta in change.deltas]
    return _recorded(model, facts, settings, deltas, image, outcome)


@alone
def fine_each(
    model: Model,
    facts: Sequence[Fact],
    settings: FineSettings | None = None,
    *,
    image: ImageLike | None = None,
    together: int = TOGETHER,
    **changes: object,
) -> list[Edit]:
    """One edit for each of several independent facts, as ``fine`` makes them one by one, in less time."""
    settings = resolved(model, settings, PRESETS, changes)
    facts = requests(model, facts, image)
    return [_edit(model, change, settings, image) for change in _learned(model, facts, settings, image, together)]


def _learned(
    model: Model, facts: Sequence[Fact], settings: FineSettings, image: ImageLike | None, together: int
) -> list[Change]:
    requests = [Request.of(model, fact, image, prepend_end=settings.prepend_end) for fact in facts]
    for group in side_by_side(requests, together):
        observe(Batch.of(model, [requests[number] for number in group]))
    changes = [Change(model, request, choose(model, request, settings)) for request in requests]
    bands = [lowest_layer(model, change.columns) * BANDS // model.num_layers for change in changes]
    for group in side_by_side(requests, together, bands, [change.routed for change in changes]):
        optimize(
            Batch.of(model, [requests[number] for number in group]), [changes[number] for number in group], settings
        )
    return changes


def _outcome(change: Change) -> dict[str, object]:
    outcome: dict[str, object] = {"steps": change.steps, "probabilities": change.reached}
    if change.start:
        outcome["start"] = change.start
    if change.request.said == change.request.run.output_ids:
        outcome["note"] = f"{change.request.fact.target_new!r} is what the model says already."
    return outcome


def _edit(model: Model, change: Change, settings: FineSettings, image: ImageLike | None) -> Edit:
    return _recorded(model, [change.request.fact], settings, change.deltas, image, _outcome(change))


def _recorded(
    model: Model,
    facts: Sequence[Fact],
    settings: FineSettings,
    deltas: Sequence[Delta],
    image: ImageLike | None,
    outcome: Mapping[str, object],
) -> Edit:
    said = {} if image is None else {"taught": [taught(model, fact, image) for fact in facts]}
    return edited("fine", model, settings, facts, deltas, _aims(model, facts, image), **outcome, **said)


def _aims(model: Model, facts: Sequence[Fact], image: ImageLike | None) -> Iterator[Aim]:
    return (Aim.of(model, fact, image) for fact in facts)


EDITOR = Editor(
    "fine", fine, FineSettings, PRESETS,
    layers="where neurons are found",
    says="learns changes of the few neurons that contribute most to what the model answers now",
    cites="Pan et al. 2025, arXiv 2503.01090",
)  # fmt: skip


__all__ = ["EDITOR", "PRESETS", "RECIPES", "TOGETHER", "FineSettings", "fine", "fine_each"]
