"""The specific recipe (ours): one layer's neurons that respond to the subject write one vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from neuronwise.answers.request import answer_ids, forced
from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.fine.specific.moments import Moments, gate, moments_of
from neuronwise.edit.fine.specific.newton import search
from neuronwise.edit.fine.specific.settings import PRESETS, SpecificSettings
from neuronwise.edit.memory.contexts import contexts
from neuronwise.edit.memory.keys import critical_layers, look, writer_in
from neuronwise.edit.memory.passages import fact_passage, text_requests
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.edit.memory.tails import from_subject
from neuronwise.edit.presets import resolved
from neuronwise.edit.record import edited
from neuronwise.edit.trial import acting, lowest_layer, recomputed_from
from neuronwise.model.lock import alone
from neuronwise.model.model import Model


@alone
def fine_specific(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: SpecificSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """An edit that responds to the facts' subjects and to little else; the model is left as it is.

    In one layer n neurons and weights k̂ are solved such that k̂·a is 1 at the subject and small on other text
    (``gate``); value vector i gains k̂_i·z, z the least vector that makes the new target likely on the prompt and
    behind self-written prefixes (``newton``). Several facts are learned each by itself and their deltas added.
    ``statistics`` replace the text that the model otherwise writes itself, once. The record says what was solved
    with, the probability of each target token with the edit in, and how many passes were made. Raises
    ``MethodError`` for models without one dense writer in the layer and for facts with a photo, ``EditError`` for
    statistics of another model, ``NonFiniteError``.
    """
    facts = text_requests(model, facts, "The specific recipe")
    settings = resolved(model, settings, PRESETS, changes)
    chosen = None if settings.layer is None else [settings.layer]
    (layer,) = critical_layers(model, chosen, (settings.depth, settings.depth))
    known = moments_of(model, layer, settings, statistics)
    prefixes = contexts(model, ((settings.prefix_tokens, settings.prefixes),), settings.seed)
    learned = [_learned(model, fact, layer, prefixes, known, settings) for fact in facts]
    outcomes = [_outcome(one) for one in learned]
    outcome = outcomes[0] if len(facts) == 1 else {name: [one[name] for one in outcomes] for name in outcomes[0]}
    outcome |= {"layer": layer, "moments": known.record, "prefixes": list(prefixes[1:])}
    notes = [f"{one.fact.target_new!r} is what the model says already." for one in learned if one.said_before]
    if notes:
        outcome["note"] = notes[0] if len(facts) == 1 else notes
    return edited("fine_specific", model, settings, facts, [one.delta for one in learned], **outcome)


@dataclass(frozen=True)
class _Learned:
    """One fact's delta, and what the record says of it."""

    fact: Fact
    delta: Delta
    steps: int
    probabilities: list[float]
    gates: list[float]
    said_before: bool
    relative_norm: float


def _outcome(learned: _Learned) -> dict[str, object]:
    return {field.name: getattr(learned, field.name) for field in fields(learned)[2:]}


def _learned(
    model: Model, fact: Fact, layer: int, prefixes: Sequence[str], known: Moments, settings: SpecificSettings
) -> _Learned:
    target = answer_ids(model, fact)
    read = [fact_passage(model, fact, prefix, target[:-1]) for prefix in prefixes]
    beside = [fact_passage(model, Fact(aside, fact.subject, fact.target_new)) for aside in settings.asides]
    writer = writer_in(model, layer)
    with (
        from_subject(model, [*read, *beside]) as passages,
        recomputed_from(model, lowest_layer(model, [writer]), passages.inputs),  # what lies below is read once for all
    ):
        seen = look(model, passages, [layer])
        # At the first position activations are of their own kind: there the subject's prefixed places count alone.
        at = [number for number, passage in enumerate(read) if passage.subject > 0] or [0]
        units, weights = gate(known, seen.keys[layer][at].mean(0), settings.n)
        size = float(seen.stream[layer][at].norm(dim=1).mean())
        found = search(model, writer, passages, target, units, weights, size, settings)
        gates = seen.keys[layer][: len(read), units] @ weights
    delta = Delta(layer, writer.path, torch.outer(found.value, weights).contiguous(), units=units)
    return _Learned(
        fact, delta, found.steps, probabilities(model, fact, delta), gates.tolist(), found.said == target,
        float(found.value.norm()) / size,
    )  # fmt: skip


def probabilities(model: Model, fact: Fact, delta: Delta) -> list[float]:
    """Those of each target token on the bare prompt with ``delta`` in the weights."""
    request = forced(model, fact)
    with torch.no_grad(), acting(model, [delta]):
        logits = model.forward(request.forced_inputs(), rows=[request.row(k) for k in range(len(request.output_ids))])
    likely = logits[0].float().softmax(-1)
    return [float(likely[place, token]) for place, token in enumerate(request.output_ids)]


EDITOR = Editor(
    "fine_specific", fine_specific, SpecificSettings, PRESETS,
    layers="at 4/15 of the depth",
    says="lets the neurons of one layer that respond to the subject, and to little else, write one vector",
    cites="neuronwise", statistics=True,
)  # fmt: skip

__all__ = ["EDITOR", "PRESETS", "SpecificSettings", "fine_specific"]
