"""The causal effect of single neurons: exact, by zeroing each; for verifying a shortlist, not for scanning."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate import heads
from neuronwise.locate.method import Method
from neuronwise.model.activations import Activations
from neuronwise.model.last_position import LastPosition
from neuronwise.model.passes import edit, edit_input
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model

Spot = tuple[int, int]  # (copy in the batch, column of the writer)


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
    ordered = sorted(among.members, key=lambda member: member.neuron.layer)  # a batch passes its lowest layer onwards
    for start in range(0, len(ordered), batch):
        part = ordered[start : start + batch]
        with contextlib.ExitStack() as stack:
            for writer, spots in _by_writer(model, [member.neuron for member in part]).items():
                stack.enter_context(_zeroed(model, writer, spots, len(part), acts))
            logits = last.evaluate(len(part), lowest=part[0].neuron.layer)
        drops = before - logits.log_softmax(-1)[:, target.token_id].cpu()
        members += [
            ScoredNeuron(member.neuron, float(drop), member.activation, baseline=member.baseline)
            for member, drop in zip(part, drops, strict=True)
        ]
    members.sort(key=lambda member: (-member.score, member.neuron))
    return NeuronSet(tuple(members), {**among.record, "method": "causal_effect", "among": among.record.get("method")})


def _by_writer(model: Model, neurons: Sequence[Neuron]) -> dict[Writer, list[Spot]]:
    spots: dict[Writer, list[Spot]] = {}
    for copy, neuron in enumerate(neurons):
        writer = model.writer(neuron)
        spots.setdefault(writer, []).append((copy, neuron.unit - writer.first))
    return spots


def _zeroed(
    model: Model, writer: Writer, spots: Sequence[Spot], count: int, acts: Activations
) -> contextlib.AbstractContextManager[None]:
    """In each of ``spots`` the neuron is zeroed at the last position of its copy.

    A routed neuron is taken out of what its experts wrote, with its recorded activation and router weight: exact,
    since nothing before it is changed in its copy.
    """

    def zero(inputs: Tensor) -> Tensor:
        rows = inputs.clone().reshape(count, -1, inputs.shape[-1])
        for copy, column in spots:
            rows[copy, -1, column] = 0
        return rows.reshape(inputs.shape)

    layer = model.blocks[writer.layer].module
    if writer.expert is None:
        return edit_input(writer.module, zero, within=layer)
    fired, vectors = writer.fired(acts), writer.vectors
    if fired is None:
        return contextlib.nullcontext()

    def subtract(out: Tensor) -> Tensor:
        rows = out.clone().reshape(count, -1, out.shape[-1])
        for copy, column in spots:
            rows[copy, -1] -= (float(fired[column]) * vectors[:, column].float()).to(rows)
        return rows.reshape(out.shape)

    return edit(layer.get_submodule(writer.site[1]), subtract, within=layer)


METHOD = Method(
    "causal_effect",
    causal_effect,
    meaning="by how much silencing each neuron lowers the log-probability of {token}",
    needs="among",
    heads=heads.causal_effect,
)
