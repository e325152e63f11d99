"""What an edit changes, in words: the tokens that its neurons raise and lower without it and with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from neuronwise.edit.delta import Delta, columns, summed, writer_of
from neuronwise.edit.edit import Edit
from neuronwise.edit.ledger import Ledger
from neuronwise.errors import MethodError
from neuronwise.model.lock import alone
from neuronwise.model.model import Model
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron
from neuronwise.read import effects
from neuronwise.read.decode import Effect
from neuronwise.registry.arguments import checked


@dataclass(frozen=True)
class ChangedNeuron:
    """A neuron whose value vector v an edit changes by ``size`` = ‖Δv‖ / ‖v‖ (infinite for v = 0), and what it raises
    and lowers without the edit and with it."""

    neuron: Neuron
    size: float
    before: Effect
    after: Effect

    def to_row(self) -> dict[str, Any]:
        """One JSON object."""
        sides = {"before": self.before, "after": self.after}
        texts = {side: {"raises": effect.raises, "lowers": effect.lowers} for side, effect in sides.items()}
        return {**self.neuron.to_row(), "size": self.size, **texts}


@alone
@checked
def changed_neurons(model: Model, edit: Edit, most: int = 20, k: int = 10) -> list[ChangedNeuron]:
    """The ``most`` neurons whose value vectors an edit changes most, with ``k`` tokens each; see ``effects``.

    The weights are as they were when it returns, with the edit or without it. Raises ``EditError`` for an edit of
    another model.
    """
    if most < 1 or k < 1:
        raise MethodError("most counts neurons and k tokens: 1 or more.")
    present = Ledger.of(model).edits
    others = [one for one in present if one.fingerprint != edit.fingerprint]
    try:
        Ledger.of(model).change(model, others)
        sizes = _sizes(model, edit)
        neurons = sorted(sizes, key=lambda neuron: (-sizes[neuron], neuron))[:most]
        if not neurons:
            return []
        before = effects(model, neurons, k)
        with edit.applied(model):
            after = effects(model, neurons, k)
    finally:
        Ledger.of(model).change(model, present)  # in their order: sums are rounded by it
    return [
        ChangedNeuron(neuron, sizes[neuron], old, new) for neuron, old, new in zip(neurons, before, after, strict=True)
    ]


def _sizes(model: Model, edit: Edit) -> dict[Neuron, float]:
    by_writer: dict[Writer, list[Delta]] = {}
    for delta in edit.deltas:
        by_writer.setdefault(writer_of(model, delta), []).append(delta)
    found: dict[Neuron, float] = {}
    for writer, deltas in by_writer.items():
        touched = columns(deltas, writer.width)
        vectors = writer.vectors.detach()[:, touched.to(writer.vectors.device)].float().cpu()
        change = summed(deltas, touched, torch.empty(len(vectors), 0)).norm(dim=0)
        shares = torch.where(change > 0, change / vectors.norm(dim=0), 0.0)  # what does not change has no size
        found |= {writer.neuron(int(unit)): float(size) for unit, size in zip(touched, shares, strict=True) if size > 0}
    return found
