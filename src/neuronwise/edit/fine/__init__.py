"""FiNE: a fact corrected by the few neurons that say what the model says now ([FiNE] §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from neuronwise.answers.request import forced, listed
from neuronwise.data.facts import Fact
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.fine.batch import Batch, groups
from neuronwise.edit.fine.change import Change, lowest_layer
from neuronwise.edit.fine.choose import choose, observe
from neuronwise.edit.fine.optimize import Attempt, optimize
from neuronwise.edit.fine.settings import PRESETS, FineSettings
from neuronwise.edit.fine.specific import SpecificSettings, fine_specific
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.edit.presets import resolved
from neuronwise.edit.record import edited
from neuronwise.errors import MethodError
from neuronwise.model.model import Model

TOGETHER = 8  # requests that pass the model side by side
RECIPES = ("published", "specific")
BANDS = 3  # requests pass together when the lowest layers they change lie in the same third of the model


def fine(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: FineSettings | SpecificSettings | None = None,
    *,
    recipe: str = "published",
    image: Any = None,
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
    edits = fine_each(model, facts, settings, image=image, together=together, **changes)
    if len(edits) == 1:
        return edits[0]
    records = [edit.record for edit in edits]
    outcome = {name: [record.get(name) for record in records] for name in ("steps", "probabilities")}
    outcome |= {name: [r.get(name) for r in records] for name in ("start", "note") if any(name in r for r in records)}
    settings = resolved(model, settings, PRESETS, changes)
    return edited("fine", model, settings, facts, [delta for edit in edits for delta in edit.deltas], **outcome)


def fine_each(
    model: Model,
    facts: Sequence[Fact],
    settings: FineSettings | None = None,
    *,
    image: Any = None,
    together: int = TOGETHER,
    **changes: object,
) -> list[Edit]:
    """One edit for each of several independent facts, as ``fine`` makes them one by one, in less time."""
    facts = listed(facts)
    settings = resolved(model, settings, PRESETS, changes)
    requests = [forced(model, fact, image) for fact in facts]
    said: dict[int, list[int]] = {}
    for group in groups(model, requests, together, [0] * len(facts)):
        said |= zip(group, observe(Batch(model, [requests[number] for number in group])), strict=True)
    learned = [Change(model, choose(model, request, said[n], settings)) for n, request in enumerate(requests)]
    bands = [lowest_layer(model, [change]) * BANDS // model.num_layers for change in learned]
    edits: dict[int, Edit] = {}
    for group in groups(model, requests, together, bands, [change.routed for change in learned]):
        batch = Batch(model, [requests[number] for number in group])
        for number, attempt in zip(group, optimize(batch, [learned[n] for n in group], settings), strict=True):
            present = said[number] == requests[number].output_ids
            edits[number] = _edit(model, facts[number], settings, attempt, present)
    return [edits[number] for number in range(len(facts))]


def _edit(model: Model, fact: Fact, settings: FineSettings, attempt: Attempt, present: bool) -> Edit:
    outcome = {"steps": attempt.steps, "probabilities": attempt.reached, **attempt.outcome}
    if present:
        outcome["note"] = f"{fact.target_new!r} is what the model says already."
    return edited("fine", model, settings, [fact], attempt.change.deltas(), **outcome)


EDITOR = Editor(
    "fine", fine, FineSettings, PRESETS,
    layers="where neurons are found",
    says="learns changes of the few neurons that contribute most to what the model answers now",
    cites="Pan et al. 2025, arXiv 2503.01090",
)  # fmt: skip


__all__ = ["EDITOR", "PRESETS", "RECIPES", "TOGETHER", "FineSettings", "fine", "fine_each"]
