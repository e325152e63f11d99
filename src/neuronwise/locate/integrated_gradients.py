"""Integrated gradients of the answer's probability, and their refinement over several prompts of one fact."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.quadrature import Rule, every, gauss
from neuronwise.locate.scores import Scores
from neuronwise.model.last_position import LastPosition
from neuronwise.model.passes import edit, frozen_parameters
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Site, Writer
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model

NODES = 7  # of the rule that is tried first
CLOSE = 1e-6  # of the largest score: what that rule may miss, as it guesses
COPIES = 40  # evaluated side by side, of at most so many tokens in all:
TOKENS = 16384
NEAR = 4  # layers that are evaluated side by side lie within so many


def integrated_gradients(model: Model, run: Run, targets: Sequence[Target], *, steps: int = 20) -> list[Scores]:
    """a · Σ_{k=1..m} ∂p_t/∂a at (k/m)·a / m, the layer's activations scaled jointly from zero ([KN] eq. 3).

    At the predicting position; p_t is the target's probability; m is ``steps``. In most layers the gradients change so
    smoothly along the way that Gauss' rule gives their sum from seven of them, to 1e-4 of the largest score and better;
    where their last coefficients say that it may not, all m are computed.
    """
    if steps < 1:
        raise MethodError(f"steps is {steps}; the integral needs 1 or more.")
    results: dict[int, Scores] = {}
    for position in sorted({target.position for target in targets}):
        own = [number for number, target in enumerate(targets) if target.position == position]
        ways = _Ways(model, run, position, [targets[number].token_id for number in own])
        with frozen_parameters(model.module):
            results.update(zip(own, ways.scores(steps), strict=True))
    return [results[number] for number in range(len(targets))]


class _Ways:
    """The way of every layer from silence to its activations at one position, for several target tokens."""

    def __init__(self, model: Model, run: Run, position: int, tokens: Sequence[int]) -> None:
        acts = run.activations(position)
        self.model, self.tokens = model, tokens
        self.last = LastPosition(model, run.forced_inputs(position))
        self.fired: dict[int, dict[Writer, Tensor]] = {}
        for block in model.blocks:
            fired = {writer: a for writer in block.writers if (a := writer.fired(acts)) is not None}
            if fired:
                self.fired[block.layer] = fired

    def scores(self, steps: int) -> list[Scores]:
        """One for each token. A layer whose sum by the short rule may be wrong is summed in full."""
        short = gauss(steps, NODES) if steps > 2 * NODES else every(steps)
        found, errors = self._summed(list(self.fired), short)
        while True:
            largest = torch.stack([values.abs().amax(1) for values in found.values()]).amax(0)
            doubtful = [layer for layer, error in errors.items() if bool((error > CLOSE * largest).any())]
            if not doubtful:
                break
            found.update(self._summed(doubtful, every(steps))[0])
            errors = {layer: error for layer, error in errors.items() if layer not in doubtful}
        results = [Scores() for _ in self.tokens]
        for fired in self.fired.values():
            for writer, a in fired.items():
                for scores, values in zip(results, found[writer], strict=True):
                    scores.put(writer, values, a)
        return results

    def _summed(self, layers: Sequence[int], rule: Rule) -> tuple[dict[Writer, Tensor], dict[int, Tensor]]:
        """(tokens, width) scores of the layers' writers; and for each layer (tokens,) what the rule may miss."""
        found: dict[Writer, Tensor] = {}
        errors: dict[int, Tensor] = {}
        for part in self._together(layers, len(rule.at)):
            gradients = self._gradients(part, rule.at)
            for layer in part:
                sizes = []
                for writer, a in self.fired[layer].items():
                    weighed = rule.rows.to(gradients[writer.site].device) @ gradients[writer.site]  # (tokens, rows, d)
                    values = a * writer.project(weighed.flatten(0, 1)).unflatten(0, weighed.shape[:2]) / rule.steps
                    found[writer] = values[:, 0].clone()
                    sizes.append(values.abs().amax(-1))
                errors[layer] = rule.error(torch.stack(sizes).amax(0).T)
        return found, errors

    def _together(self, layers: Sequence[int], size: int) -> Iterator[list[int]]:
        """Layers to evaluate side by side: close to each other, since all copies pass the lowest of them."""
        shared = len({id(block.module) for block in self.model.blocks}) < self.model.num_layers
        most = 1 if shared else min(COPIES, TOKENS // self.last.inputs["input_ids"].shape[1]) // size
        part: list[int] = []
        for layer in layers:
            if part and (len(part) >= most or layer > part[0] + NEAR):
                yield part
                part = []
            part.append(layer)
        if part:
            yield part

    def _gradients(self, layers: Sequence[int], factors: Tensor) -> dict[Site, Tensor]:
        """(tokens, n, d) for each site of the layers: ∂p_t/∂(what is written there) with each of n factors of it.

        All layers are evaluated side by side: the copies of each have their own factors, and no other layer's.
        """
        size, count, leaves = len(factors), len(layers) * len(factors), dict[Site, Tensor]()

        def scaled(site: Site, part: Tensor, first: int, out: Tensor) -> Tensor:
            """What the neurons write is replaced by the leaf; biases and other branches stay in the graph."""
            rows, part = out.reshape(count, -1, out.shape[-1]).clone(), part.to(out.device)
            leaf = (factors.to(out.device).unsqueeze(1) * part).to(out.dtype).requires_grad_(True)
            leaves[site] = leaf
            rows[first : first + size, -1] += leaf - part.to(out.dtype)
            return rows.reshape(out.shape)

        with contextlib.ExitStack() as stack:
            for number, layer in enumerate(layers):
                block = self.model.blocks[layer].module
                for site, part in self._written(layer).items():
                    change = functools.partial(scaled, site, part, number * size)
                    stack.enter_context(edit(block.get_submodule(site[1]), change, within=block))
            chances = self.last.evaluate(count, grad=True, lowest=min(layers)).softmax(-1)
            sums = [chances[:, token].sum() for token in self.tokens]
            pulled = [torch.autograd.grad(one, list(leaves.values()), retain_graph=one is not sums[-1]) for one in sums]
        stacked = [torch.stack(of_tokens).float() for of_tokens in zip(*pulled, strict=True)]
        return dict(zip(leaves, stacked, strict=True))

    def _written(self, layer: int) -> dict[Site, Tensor]:
        """(d,) for each site of a layer: what its neurons write there."""
        parts: dict[Site, Tensor] = {}
        for writer, a in self.fired[layer].items():
            vectors = writer.vectors
            written = vectors.float() @ a.to(vectors.device)
            parts[writer.site] = parts[writer.site] + written if writer.site in parts else written
        return parts


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
