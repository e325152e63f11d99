"""Integrated gradients of the answer's probability, and their refinement over several prompts of one fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model.blocks import dense_weight, expert_weight, writer_bias
from neuronwise.model.hooks import Hooks
from neuronwise.model.interfere import LastPosition, change_output
from neuronwise.model.record import Activations, routed_unit
from neuronwise.model.run import Run, Target
from neuronwise.model.stream import frozen_parameters
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model
    from neuronwise.model.blocks import Block


def integrated_gradients(model: Model, run: Run, targets: Sequence[Target], *, steps: int = 20) -> list[Scores]:
    """a · Σ_{k=1..m} ∂p_t/∂a at (k/m)·a / m, the layer's activations scaled jointly from zero ([KN] eq. 3).

    At the predicting position; p_t is the target's probability; m is ``steps``. One pass of m copies for each layer.
    """
    if steps < 1:
        raise MethodError(f"steps is {steps}; the integral needs 1 or more.")
    return [_one_target(model, run, target, steps) for target in targets]


def _one_target(model: Model, run: Run, target: Target, steps: int) -> Scores:
    last = LastPosition(model, run.forced_inputs(target.position))
    acts = run.activations(target.position)
    scores = Scores()
    with frozen_parameters(model.module):
        for block in model.blocks:
            leaves: dict[str, Tensor] = {}
            logits = last.evaluate(
                steps, lambda hooks, b=block, found=leaves: _scale(hooks, b, acts, steps, found), grad=True
            )
            if not leaves:
                continue
            probability = logits.softmax(-1)[:, target.token_id].sum()
            names = list(leaves)
            gradients = torch.autograd.grad(probability, [leaves[n] for n in names])
            sums = {n: g.float().sum(0) for n, g in zip(names, gradients, strict=True)}
            _add_layer(scores, block, acts, sums, steps)
    return scores


def _scale(hooks: Hooks, block: Block, acts: Activations, steps: int, leaves: dict[str, Tensor]) -> None:
    """Scale what the layer's neurons write at the last position by k/m in copy k, and keep that as the leaf."""
    factors = torch.arange(1, steps + 1, dtype=torch.float32) / steps

    def scaled(name: str, constant: Tensor | None) -> object:
        def change(out: Tensor) -> Tensor:
            rows = out.reshape(steps, -1, out.shape[-1])
            factor = factors.to(out.device, out.dtype).unsqueeze(1)
            fixed = 0 if constant is None else constant.to(out.device, out.dtype)
            leaf = (fixed + factor * (rows[:, -1] - fixed)).detach().requires_grad_(True)
            leaves[name] = leaf
            return torch.cat([rows[:, :-1], leaf.unsqueeze(1)], dim=1).reshape(out.shape)

        return change

    for writer in block.dense:
        change_output(hooks, writer.module, scaled(writer.path, writer_bias(writer.module)), block)  # type: ignore[arg-type]
    for number, _ in enumerate(block.routed):
        routed_part = routed_written(block, acts, number)

        def change(out: Tensor, number: int = number, part: Tensor = routed_part) -> Tensor:
            rows = out.reshape(steps, -1, out.shape[-1])
            factor = factors.to(out.device).unsqueeze(1)
            leaf = (factor * part.to(out.device)).to(out.dtype).requires_grad_(True)
            leaves[f"routed {number}"] = leaf
            moved = rows[:, -1] - part.to(out.device, out.dtype) + leaf  # a shared expert's part stays in the graph
            return torch.cat([rows[:, :-1], moved.unsqueeze(1)], dim=1).reshape(out.shape)

        change_output(hooks, routed_unit(block, number), change, block)


def routed_written(block: Block, acts: Activations, number: int) -> Tensor:
    """(d,): Σ router weight · a · v over the experts of one routed writer, without their biases."""
    routed = block.routed[number]
    first = block.first_expert(routed)
    total = torch.zeros(block.hidden_size)
    for expert, record in acts.routed.get(block.layer, [{}])[0].items():
        if first <= expert < first + routed.experts:
            weight = expert_weight(routed, expert - first).float()
            total += record.weight * (weight @ record.activation.to(weight.device).float()).cpu()
    return total


def _add_layer(scores: Scores, block: Block, acts: Activations, sums: dict[str, Tensor], steps: int) -> None:
    if block.dense:
        parts = [(sums[w.path] @ dense_weight(w).float()).cpu() for w in block.dense]
        a = acts.dense[block.layer][0].float()
        scores.values[block.layer, None] = a * torch.cat(parts) / steps
        scores.activations[block.layer, None] = a
    for expert, record in (acts.routed[block.layer][0] if block.layer in acts.routed else {}).items():
        routed, local = block.expert(expert)
        gradient = sums[f"routed {block.routed.index(routed)}"]
        a = record.written
        read = (gradient @ expert_weight(routed, local).float()).cpu()
        scores.values[block.layer, expert] = a * read / steps
        scores.activations[block.layer, expert] = a


def refine(
    scores: Sequence[Scores], *, coarse: float = 0.2, share: float = 0.7, step: float = 0.05, at_most: int = 5,
    at_least: int = 2,
) -> NeuronSet:  # fmt: skip
    """Knowledge neurons of one fact over its paraphrases ([KN] §3.2).

    Coarse set of each prompt: score ≥ ``coarse`` · its maximum. Kept: neurons in at least ``share`` of the coarse
    sets; the share moves by ``step`` until between ``at_least`` and ``at_most`` remain (or none is left to move).
    """
    if not scores:
        raise MethodError("Refining needs the scores of one prompt or more.")
    counts: Counter[Neuron] = Counter()
    sums: dict[Neuron, float] = {}
    for one in scores:
        top = max(float(values.max()) for values in one.values.values())
        for (layer, expert), values in one.values.items():
            for unit in torch.nonzero(values >= coarse * top).flatten().tolist() if top > 0 else ():
                neuron = Neuron(layer, unit, expert)
                counts[neuron] += 1
                sums[neuron] = sums.get(neuron, 0.0) + float(values[unit])
    kept, used = _within(counts, len(scores), share, step, at_least, at_most)
    members = [ScoredNeuron(n, sums[n] / len(scores)) for n in kept]
    members.sort(key=lambda member: (-member.score, member.neuron))
    record = {"method": "integrated_gradients", "refined_over": len(scores), "coarse": coarse, "share": used}
    return NeuronSet(tuple(members), record)


def _within(
    counts: Counter[Neuron], prompts: int, share: float, step: float, at_least: int, at_most: int
) -> tuple[list[Neuron], float]:
    def kept(at: float) -> list[Neuron]:
        return [neuron for neuron, count in counts.items() if count >= at * prompts - 1e-9]

    current = kept(share)
    while len(current) > at_most and share + step <= 1 + 1e-9:
        share += step
        current = kept(share)
    while len(current) < at_least and share - step > 1e-9:
        share -= step
        current = kept(share)
    return current, round(share, 4)


METHOD = Method(
    "integrated_gradients",
    integrated_gradients,
    meaning="activation × integrated gradient of the probability of {token}",
    source="Dai et al. 2022 (arXiv 2104.08696), eq. 3",
    join=refine,
)
