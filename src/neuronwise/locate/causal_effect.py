"""The causal effect of single neurons: exact, by zeroing each; for verifying a shortlist, not for scanning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.model.hooks import Hooks
from neuronwise.model.interfere import LastPosition, change_activations, change_output
from neuronwise.model.record import Activations, routed_unit
from neuronwise.model.run import Run, Target
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model


def causal_effect(model: Model, run: Run, target: Target, among: NeuronSet, *, batch: int = 64) -> NeuronSet:
    """Rank ``among`` by the drop of log p(t) (nats) when the neuron's activation at the predicting position is zeroed.

    One pass for each ``batch`` neurons, each in a copy of its own.
    """
    if batch < 1:
        raise MethodError(f"batch is {batch}; evaluate 1 neuron or more at a time.")
    last = LastPosition(model, run.forced_inputs(target.position))
    before = last.logits.log_softmax(-1)[target.token_id].cpu()
    acts = run.activations(target.position)
    members = []
    for start in range(0, len(among), batch):
        part = among.members[start : start + batch]
        neurons = [member.neuron for member in part]
        logits = last.evaluate(len(neurons), lambda hooks, n=neurons: zero_each(model, hooks, n, acts))
        drops = before - logits.log_softmax(-1)[:, target.token_id].cpu()
        members += [
            ScoredNeuron(member.neuron, float(drop), member.activation)
            for member, drop in zip(part, drops, strict=True)
        ]
    members.sort(key=lambda member: (-member.score, member.neuron))
    return NeuronSet(tuple(members), {**among.record, "method": "causal_effect", "among": among.record.get("method")})


def zero_each(model: Model, hooks: Hooks, neurons: Sequence[Neuron], acts: Activations) -> None:
    """In copy k of the batch, zero neuron k at the last position.

    A routed neuron is taken out of what its experts wrote, with its recorded activation and router weight: exact,
    since nothing before it is changed in its copy.
    """
    count = len(neurons)
    by_layer: dict[int, list[int]] = {}
    for copy, neuron in enumerate(neurons):
        by_layer.setdefault(neuron.layer, []).append(copy)
    for layer, copies in by_layer.items():
        block = model.blocks[layer]
        dense = [(k, neurons[k].unit) for k in copies if neurons[k].expert is None]
        if dense:

            def change(a: Tensor, pairs: list[tuple[int, int]] = dense) -> Tensor:
                a = a.clone()
                for k, unit in pairs:
                    a[k, -1, unit] = 0
                return a

            change_activations(hooks, block, change, batch=count)
        for number, routed in enumerate(block.routed):
            first = block.first_expert(routed)
            removed: list[tuple[int, Tensor]] = []
            for k in copies:
                expert = neurons[k].expert
                if expert is None or not first <= expert < first + routed.experts:
                    continue
                record = acts.routed[layer][0].get(expert)
                if record is not None:
                    written = record.weight * float(record.activation[neurons[k].unit])
                    removed.append((k, written * block.value_vector(neurons[k]).float()))

            def subtract(out: Tensor, removed: list[tuple[int, Tensor]] = removed) -> Tensor:
                rows = out.clone().reshape(count, -1, out.shape[-1])
                for k, vector in removed:
                    rows[k, -1] -= vector.to(rows.device, rows.dtype)
                return rows.reshape(out.shape)

            if removed:
                change_output(hooks, routed_unit(block, number), subtract)


METHOD = Method(
    "causal_effect",
    causal_effect,
    meaning="by how much silencing each neuron lowers the log-probability of {token}",
    needs="among",
)
