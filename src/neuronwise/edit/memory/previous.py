"""Keys of edits that the model carries already: as they were solved for, or read anew for the facts of their record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from neuronwise.data.facts import Fact
from neuronwise.edit.delta import Record, Recorded
from neuronwise.edit.memory.keys import fact_keys
from neuronwise.model.model import Model

KEYS: WeakKeyDictionary[Recorded, dict[int, Tensor]] = WeakKeyDictionary()
"""The keys (f, n) of each layer that an edit was solved for; gone with the edit."""
FACT = {"prompt", "subject", "target_new"}  # what a record of a fact has at least


def keys_of(model: Model, edit: Recorded, layers: Sequence[int], prefixes: Sequence[str]) -> dict[int, Tensor]:
    """The keys (f, n) of each of the layers that an edit was solved for, float64: known, or read anew for its facts."""
    known = KEYS.get(edit)
    if known is not None and set(layers) <= set(known):
        return known
    facts = facts_of(edit.record)
    if not facts:
        width = {layer: model.blocks[layer].width for layer in layers}
        return {layer: torch.zeros(width[layer], 0, dtype=torch.float64) for layer in layers}
    found = {layer: fact_keys(model, facts, layer, prefixes, halves=True).T.double() for layer in layers}
    KEYS[edit] = found
    return found


def facts_of(record: Record) -> list[Fact]:
    """The facts that an edit's record asks for, also of composed edits."""
    if "parts" in record:
        return [fact for part in record["parts"] for fact in facts_of(part)]
    request = record.get("request") or []
    asked = request if isinstance(request, list) else [request]
    names = {field.name for field in fields(Fact)}
    # A swap or a suppression asks for no fact, so it has no keys to keep.
    return [Fact(**{name: one[name] for name in names & one.keys()}) for one in asked if one.keys() >= FACT]
