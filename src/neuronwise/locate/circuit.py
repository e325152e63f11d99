"""A circuit: the neurons, each at its position, through which an answer came about, and what passes between them.

Nodes are the (neuron, position) pairs of largest |relevance|; leaves are the positions of the prompt (patches of an
image, tokens of a text); the root is the target's logit. An edge m → n is the part of n's relevance that comes
directly from m: m · ∂̃a_n/∂m · relevance(n) / a_n, one backward pass from a_n under the rules of relevance propagation,
cut at every selected node below it ([RelP], [TRL]). What comes from elsewhere, neurons that are not selected and
biases, is a node's rest, so that its incoming edges and its rest add up to its relevance.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from neuronwise.arguments import checked
from neuronwise.errors import MethodError
from neuronwise.locate.contrast import Contrast
from neuronwise.locate.graph import ROOT, Circuit, Edge, Leaf
from neuronwise.locate.locating import describe
from neuronwise.locate.memory import require_memory
from neuronwise.locate.method import require_own
from neuronwise.locate.positions import strongest
from neuronwise.locate.relp import readout_weights, relp
from neuronwise.model import Model
from neuronwise.model.direct import logit_scale
from neuronwise.model.passes import edit_input, frozen_parameters, outputs_of
from neuronwise.model.relevance import relevance_rules
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Writer
from neuronwise.neurons import NeuronSet, ScoredNeuron

CHUNK = 16  # backward passes done side by side
MOST = 5000  # nodes


@checked
def circuit(
    model: Model,
    run: Run,
    concept: str | None = None,
    *,
    target: str | int | None = None,
    position: int | None = None,
    occurrence: int = 0,
    nodes: int = 100,
    contrast: Contrast = None,
) -> Circuit:
    """The circuit of ``nodes`` (neuron, position) pairs behind a word of the run's text, or behind any target token.

    ``contrast`` as for ``relp``. One backward pass for each node. Raises ``MethodError`` for an architecture with a
    mixer of positions that has no rule, and for one whose neurons all lie in routed experts; neurons of routed experts
    beside dense ones are no nodes, and what passes through them counts to the edges that it belongs to. What would need
    more memory than is free is refused with the estimate, before anything is computed.
    """
    if not isinstance(nodes, int) or not 1 <= nodes <= MOST:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MethodError(f"nodes is {nodes}; ask for 1 to {MOST} nodes, each of which takes a backward pass.")
    require_own(model, [run])
    wanted = run.target(concept, target, position, occurrence)
    require_memory(model, run.length, nodes, CHUNK)
    weights = readout_weights(model, run, wanted, contrast)
    found = _strongest(model, run, wanted, contrast, nodes)
    record = {**describe(model, run, wanted, "circuit", {"nodes": nodes, "contrast": contrast})}
    return _CutPass(model, run, wanted, weights, found).circuit(NeuronSet(found.members, record))


def _strongest(model: Model, run: Run, target: Target, contrast: Contrast, count: int) -> NeuronSet:
    """The ``count`` (neuron, position) pairs of largest |a · ∂̃y/∂a| over all dense writers."""
    (parts,) = relp(model, run, [target], contrast=contrast)
    found = strongest((part for part in parts if part.writer.expert is None), count, by_size=True)
    if not found:
        raise MethodError(f"All neurons of {model.name} lie in routed experts, which are no nodes of a circuit yet.")
    return NeuronSet(tuple(member for member in found if member.score))


class _CutPass:
    """One pass under the rules in which every node's activation is a leaf of the graph, and so is the embedding."""

    def __init__(self, model: Model, run: Run, target: Target, weights: Mapping[int, float], nodes: NeuronSet) -> None:
        self.model, self.run = model, run
        self.by_writer: dict[Writer, list[ScoredNeuron]] = {}
        for node in nodes:
            self.by_writer.setdefault(model.writer(node.neuron), []).append(node)
        self.before: dict[Writer, Tensor] = {}  # (nodes of the writer,) as the layers below give them
        self.leaves: dict[Writer, Tensor] = {}  # the same numbers, as the layers above read them
        self.embedded = torch.empty(0)
        row = run.row(target.position)
        with frozen_parameters(model.module), torch.enable_grad(), relevance_rules(model), self._cuts():
            with outputs_of(model.head) as seen:
                logits = model.forward(run.forced_inputs(), rows=[row])
            raw = seen[-1] * logit_scale(logits, seen[-1])
        tokens = torch.tensor(list(weights), device=raw.device)
        self.value = (raw[0, 0, tokens].float() * torch.tensor(list(weights.values()), device=raw.device)).sum()
        self.last = run.length + row

    @contextlib.contextmanager
    def _cuts(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(edit_input(self.model.blocks[0].module, self._embed))
            for writer in self.by_writer:
                layer = self.model.blocks[writer.layer].module
                stack.enter_context(
                    edit_input(writer.module, lambda values, writer=writer: self._cut(writer, values), within=layer)
                )
            yield

    def _embed(self, hidden: Tensor) -> Tensor:
        self.embedded = hidden.detach().requires_grad_(True)
        return self.embedded

    def _cut(self, writer: Writer, values: Tensor) -> Tensor:
        flat = values.reshape(-1, values.shape[-1])
        nodes = self.by_writer[writer]
        rows = torch.tensor([node.position for node in nodes], device=values.device)
        columns = writer.columns(node.neuron for node in nodes).to(values.device)
        self.before[writer] = flat[rows, columns]
        self.leaves[writer] = self.before[writer].detach().requires_grad_(True)
        return flat.index_put((rows, columns), self.leaves[writer]).reshape(values.shape)

    def circuit(self, nodes: NeuronSet) -> Circuit:
        """All edges, the strongest first, and what is left of each place."""
        edges = list(self._edges(self.value.unsqueeze(0), [ROOT], torch.ones(1)))
        for writer, members in self.by_writer.items():
            scores = torch.tensor([member.score for member in members])
            a = self.before[writer].detach().float().cpu()
            edges += self._edges(self.before[writer], [str(member) for member in members], scores / a)
        totals = {str(member): member.score for member in nodes} | {ROOT: float(self.value.detach())}
        for edge in edges:
            totals[edge.target] -= edge.weight
        edges.sort(key=lambda edge: (-abs(edge.weight), edge.source, edge.target))
        value = float(self.value.detach())
        return Circuit(nodes, self._leaf_places(), tuple(edges), totals, value, nodes.record, self.run)

    def _edges(self, outputs: Tensor, names: Sequence[str], scale: Tensor) -> Iterator[Edge]:
        """Edges into ``outputs`` (n,): input · gradient · scale, from other writers' nodes and from the embeddings."""
        if not outputs.requires_grad:
            return
        sources = list(self.leaves)
        inputs = [self.embedded, *(self.leaves[writer] for writer in sources)]
        for start in range(0, len(outputs), CHUNK):
            part = outputs[start : start + CHUNK]
            pulled = torch.autograd.grad(
                part, inputs, torch.eye(len(part), device=part.device, dtype=part.dtype), retain_graph=True,
                allow_unused=True, is_grads_batched=True,
            )  # fmt: skip
            factors = scale[start : start + CHUNK]
            yield from self._read(pulled, sources, names[start : start + CHUNK], factors)

    def _read(
        self, pulled: Sequence[Tensor | None], sources: Sequence[Writer], names: Sequence[str], factors: Tensor
    ) -> Iterator[Edge]:
        embedded, *others = pulled
        if embedded is not None:
            shares = (embedded.float() * self.embedded.detach().float()).sum(-1).reshape(len(names), -1).cpu()
            weighted = shares * factors[:, None]
            for at, name in enumerate(names):
                for position in range(min(self.last + 1, weighted.shape[1])):
                    if weighted[at, position]:
                        yield Edge(f"@{position}", name, float(weighted[at, position]))
        for writer, gradient in zip(sources, others, strict=True):
            if gradient is None:
                continue
            weighted = (gradient.float() * self.leaves[writer].detach().float()).cpu() * factors[:, None]
            for at, name in enumerate(names):
                for node, weight in zip(self.by_writer[writer], weighted[at].tolist(), strict=True):
                    if weight:
                        yield Edge(str(node), name, weight)

    def _leaf_places(self) -> tuple[Leaf, ...]:
        image = set(self.run.image_positions.tolist()) if self.run.has_image_tokens else set()
        return tuple(
            Leaf(position, "image" if position in image else "token", token)
            for position, token in enumerate(self.run.tokens[: self.last + 1])
        )
