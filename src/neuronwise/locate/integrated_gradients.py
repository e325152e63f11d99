"""Integrated gradients of the answer's probability, and their refinement over several prompts of one fact."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.scores import Scores
from neuronwise.model.last_position import LastPosition
from neuronwise.model.passes import edit, frozen_parameters
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Site, Writer
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
            fired = {writer: a for writer in block.writers if (a := writer.fired(acts)) is not None}
            gradients = _gradients(last, block, fired, target.token_id, steps)
            for writer, a in fired.items():
                scores.put(writer, a * writer.project(gradients[writer.site].unsqueeze(0))[0] / steps, a)
    return scores


def _gradients(
    last: LastPosition, block: Block, fired: Mapping[Writer, Tensor], token: int, steps: int
) -> dict[Site, Tensor]:
    """(d,) for each site of a layer: ∂p_t/∂(what is written) summed over the copies, k/m of it written in copy k."""
    if not fired:
        return {}
    leaves: dict[Site, Tensor] = {}
    factors = torch.arange(1, steps + 1, dtype=torch.float32).unsqueeze(1) / steps
    parts: dict[Site, Tensor] = {}
    for writer, a in fired.items():
        vectors = writer.vectors
        written = vectors.float() @ a.to(vectors.device)
        parts[writer.site] = parts[writer.site] + written if writer.site in parts else written

    def scaled(site: Site, out: Tensor) -> Tensor:
        """What the neurons write is replaced by the leaf; biases and other branches stay in the graph."""
        rows = out.reshape(steps, -1, out.shape[-1])
        part = parts[site].to(out.device)
        leaves[site] = (factors.to(out.device) * part).to(out.dtype).requires_grad_(True)
        moved = rows[:, -1] - part.to(out.dtype) + leaves[site]
        return torch.cat([rows[:, :-1], moved.unsqueeze(1)], dim=1).reshape(out.shape)

    with contextlib.ExitStack() as stack:
        for site in parts:
            module = block.module.get_submodule(site[1])
            stack.enter_context(edit(module, functools.partial(scaled, site), within=block.module))
        probability = last.evaluate(steps, grad=True).softmax(-1)[:, token].sum()
        gradients = torch.autograd.grad(probability, list(leaves.values()))
    return {site: gradient.float().sum(0) for site, gradient in zip(leaves, gradients, strict=True)}


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
        top = max(float(values.max()) for values in one.values())
        for writer, values in one.items():
            for column in torch.nonzero(values >= coarse * top).flatten().tolist() if top > 0 else ():
                neuron = writer.neuron(column)
                counts[neuron] += 1
                sums[neuron] = sums.get(neuron, 0.0) + float(values[column])
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
    records=True,
)
