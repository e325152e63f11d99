"""The specific recipe (ours): one layer's neurons that answer to the subject write one vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from neuronwise.answers.request import forced, listed, target_ids
from neuronwise.data.facts import Fact
from neuronwise.edit.above import recomputed_from
from neuronwise.edit.delta import Delta
from neuronwise.edit.edit import Edit
from neuronwise.edit.editor import Editor
from neuronwise.edit.fine.specific.gate import gate
from neuronwise.edit.fine.specific.moments import Moments, moments_of
from neuronwise.edit.fine.specific.newton import lowest, search
from neuronwise.edit.fine.specific.settings import PRESETS, SpecificSettings
from neuronwise.edit.memory.contexts import contexts
from neuronwise.edit.memory.keys import act, critical_layers, look, writer_in
from neuronwise.edit.memory.passages import fact_passage, require_text
from neuronwise.edit.memory.statistics import Statistics
from neuronwise.edit.memory.tails import from_subject
from neuronwise.edit.presets import resolved
from neuronwise.edit.record import edited
from neuronwise.model.hooks import Hooks
from neuronwise.model.model import Model


def fine_specific(
    model: Model,
    facts: Fact | Sequence[Fact],
    settings: SpecificSettings | None = None,
    *,
    statistics: Statistics | None = None,
    **changes: object,
) -> Edit:
    """An edit that answers to the facts' subjects and to little else; the model is left as it is.

    In one layer n neurons and weights k̂ are solved such that k̂·a is 1 at the subject and small on other text
    (``gate``); value vector i gains k̂_i·z, z the least vector that makes the new target likely on the prompt and
    behind self-written prefixes (``newton``). Several facts are learned each by itself and their deltas added.
    ``statistics`` stand in for the text that the model else writes itself, once. The record says what was solved
    with, the probability of each target token with the edit in, and how many passes were made. Raises
    ``MethodError`` for models without one dense writer in the layer and for facts with a photo, ``EditError`` for
    statistics of another model, ``NonFiniteError``.
    """
    facts = listed(facts)
    require_text(model, facts, "The specific recipe")
    settings = resolved(model, settings, PRESETS, changes)
    chosen = None if settings.layer is None else [settings.layer]
    (layer,) = critical_layers(model, chosen, (settings.depth, settings.depth))
    known = moments_of(model, layer, settings, statistics)
    prefixes = contexts(model, ((settings.prefix_tokens, settings.prefixes),), settings.seed)
    found = [_learned(model, fact, layer, prefixes, known, settings) for fact in facts]
    outcome = {name: [one[name] for _, one in found] if len(found) > 1 else found[0][1][name] for name in found[0][1]}
    outcome |= {"layer": layer, "moments": known.record, "prefixes": list(prefixes[1:])}
    notes = [f"{fact.target_new!r} is what the model says already." for fact, (_, one) in zip(facts, found, strict=True)
             if one["said_before"]]  # fmt: skip
    if notes:
        outcome["note"] = notes[0] if len(facts) == 1 else notes
    return edited("fine_specific", model, settings, facts, [delta for delta, _ in found], **outcome)


def _learned(
    model: Model, fact: Fact, layer: int, prefixes: Sequence[str], known: Moments, settings: SpecificSettings
) -> tuple[Delta, dict[str, Any]]:
    target = target_ids(model, fact.target_new)
    passages = [fact_passage(model, fact, prefix, target[:-1]) for prefix in prefixes]
    beside = [fact_passage(model, Fact(aside, fact.subject, fact.target_new)) for aside in settings.asides]
    writer = writer_in(model, layer)
    with (
        from_subject(model, [*passages, *beside]) as batch,
        recomputed_from(model, lowest(model, writer.module), batch.inputs),  # what lies below is read once for all
    ):
        seen = look(model, batch, [layer])
        # At the first position activations are of their own kind: a subject there is known by its prefixed places.
        at = [number for number, passage in enumerate(passages) if passage.subject > 0] or [0]
        units, weights = gate(known, seen.keys[layer][at].mean(0), settings.n)
        size = float(seen.stream[layer][at].norm(dim=1).mean())
        block = model.blocks[layer]
        found = search(model, block, batch, target, units, weights, size, settings)
        gates = seen.keys[layer][: len(passages), units] @ weights
    left = torch.outer(found.value, weights).contiguous()
    delta = Delta(layer, writer.path, left, units=units)
    reached = probabilities(model, fact, delta)
    return delta, {
        "steps": found.steps, "probabilities": reached, "gates": gates.tolist(), "said_before": found.said == target,
        "relative_norm": float(found.value.norm()) / size,
    }  # fmt: skip


def probabilities(model: Model, fact: Fact, delta: Delta) -> list[float]:
    """Those of each target token on the bare prompt with ``delta`` in the weights."""
    request = forced(model, fact)
    with torch.no_grad(), Hooks() as hooks:
        act(hooks, model, [delta])
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
