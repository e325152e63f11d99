"""Integrated gradients of the answer's probability, and their refinement over several prompts of one fact."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.locate.method import Method
from neuronwise.locate.quadrature import Rule, every, radau
from neuronwise.locate.scores import Scores
from neuronwise.model.last_position import LastPosition
from neuronwise.model.passes import edit, frozen_parameters
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Site, Writer
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron

if TYPE_CHECKING:
    from neuronwise.model import Model

NODES = (6, 10)  # of the rules that are tried before all steps
CLOSE = 2e-5  # of the largest score: what a rule may miss, as it guesses
COPIES = 40  # evaluated side by side where all pass the lowest of their layers; these lie within so many:
NEAR = 4
TOKENS, LOGITS = 2**14, 2**23  # of all copies


def integrated_gradients(model: Model, run: Run, targets: Sequence[Target], *, steps: int = 20) -> list[Scores]:
    """a · Σ_{k=1..m} ∂p_t/∂a at (k/m)·a / m, the layer's activations scaled jointly from zero ([KN] eq. 3).

    At the predicting position; p_t is the target's probability; m is ``steps``. In most layers the gradients change so
    smoothly along the way that Radau's rule gives their sum from six of them, to 1e-4 of the largest score and better;
    where their last coefficients say that it may not, ten or all m are computed.
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
        """One for each token. A layer whose sum by a short rule may be wrong is summed by one that is long enough."""
        short = [radau(steps, nodes) for nodes in NODES if nodes < 2 * steps // 3]
        found: dict[Writer, Tensor] = {}
        due = dict.fromkeys(self.fired, [*short, every(steps)][0])
        while due:
            new, sizes = self._summed(due)
            found.update(new)
            close = CLOSE * torch.stack([values.abs().amax(1) for values in found.values()]).amax(0)
            due = {
                layer: _close_enough(short, own, close) or every(steps)
                for layer, own in sizes.items()
                if bool((due[layer].error(own) > close).any())
            }
        results = [Scores() for _ in self.tokens]
        for fired in self.fired.values():
            for writer, a in fired.items():
                for scores, values in zip(results, found[writer], strict=True):
                    scores.put(writer, values, a)
        return results

    def _summed(self, rules: Mapping[int, Rule]) -> tuple[dict[Writer, Tensor], dict[int, Tensor]]:
        """(tokens, width) scores of the writers of some layers; and for each layer (rows, tokens) the rule's sizes."""
        found: dict[Writer, Tensor] = {}
        sizes: dict[int, Tensor] = {}
        for part in self._together(rules):
            gradients = self._gradients({layer: rules[layer].at for layer in part})
            for layer in part:
                largest, rule = [], rules[layer]
                for writer, a in self.fired[layer].items():
                    weighed = rule.rows.to(gradients[writer.site].device) @ gradients[writer.site]  # (tokens, rows, d)
                    values = a * writer.project(weighed.flatten(0, 1)).unflatten(0, weighed.shape[:2]) / rule.steps
                    found[writer] = values[:, 0].clone()
                    largest.append(values.abs().amax(-1))
                sizes[layer] = torch.stack(largest).amax(0).T
        return found, sizes

    def _together(self, rules: Mapping[int, Rule]) -> Iterator[list[int]]:
        """Layers to evaluate side by side; close to each other where all copies pass the lowest of them."""
        shared = len({id(block.module) for block in self.model.blocks}) < self.model.num_layers
        joins, length = self.last.joins, self.last.inputs["input_ids"].shape[1]
        most = min(TOKENS // length, LOGITS // self.last.logits.numel() if joins else COPIES)
        part: list[int] = []
        copies = 0
        for layer, rule in rules.items():
            copies += rule.nodes
            if part and (shared or copies > most or (layer > part[0] + NEAR and not joins)):
                yield part
                part, copies = [], rule.nodes
            part.append(layer)
        if part:
            yield part

    def _gradients(self, factors: Mapping[int, Tensor]) -> dict[Site, Tensor]:
        """(tokens, n, d) for each site of some layers: ∂p_t/∂(what is written there) with each of n factors of it.

        All layers are evaluated side by side: the copies of each have its factors, and no other layer's. The first copy
        is the model as it is, whose gradients are those with the last factor, 1, in every layer.
        """
        copies = {layer: len(values) - 1 for layer, values in factors.items()}
        lowest = min(copies)
        copies[lowest] += 1
        written: dict[Site, Tensor] = {}  # by all copies
        own: dict[Site, list[int]] = {}
        joined = list(accumulate(copies.values()))

        def scaled(site: Site, part: Tensor, count: int, out: Tensor) -> Tensor:
            """What the neurons write is scaled; biases and other branches stay as they are."""
            rows, factor = out.reshape(count, -1, out.shape[-1]).clone(), factors[site[0]][:-1].unsqueeze(1)
            rows[own[site][:-1], -1] += ((factor.to(out.device) - 1) * part.to(out.device)).to(out.dtype)
            written[site] = rows if rows.requires_grad else rows.requires_grad_(True)
            return rows.clone().reshape(out.shape)  # some blocks add to it in place

        with contextlib.ExitStack() as stack:
            for layer, end in zip(factors, joined, strict=True):
                block = self.model.blocks[layer].module
                for site, part in self._written(layer).items():
                    own[site] = [*range(end - len(factors[layer]) + 1, end), 0]
                    change = functools.partial(scaled, site, part, end if self.last.joins else joined[-1])
                    stack.enter_context(edit(block.get_submodule(site[1]), change, within=block))
            if self.last.joins:
                logits = self.last.evaluate_joining(copies, grad=True)
            else:
                logits = self.last.evaluate(joined[-1], grad=True, lowest=lowest)
            sums = logits.softmax(-1)[:, self.tokens].sum(0)
            pulled = [
                torch.autograd.grad(one, list(written.values()), retain_graph=number + 1 < len(sums))
                for number, one in enumerate(sums)
            ]
        stacked = zip(*pulled, strict=True)
        return {
            site: torch.stack([one[own[site], -1] for one in of_tokens]).float()
            for site, of_tokens in zip(written, stacked, strict=True)
        }

    def _written(self, layer: int) -> dict[Site, Tensor]:
        """(d,) for each site of a layer: what its neurons write there."""
        parts: dict[Site, Tensor] = {}
        for writer, a in self.fired[layer].items():
            vectors = writer.vectors
            written = vectors.float() @ a.to(vectors.device)
            parts[writer.site] = parts[writer.site] + written if writer.site in parts else written
        return parts


def _close_enough(rules: Sequence[Rule], sizes: Tensor, close: Tensor) -> Rule | None:
    """The shortest rule that misses at most ``close`` (tokens,), as a rule's ``sizes`` (n, tokens) tell; None: none."""
    return next((rule for rule in rules if bool((rule.error(sizes, rule.nodes) <= close).all())), None)


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
