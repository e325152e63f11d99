"""Edges of a circuit: what of a place's relevance comes from each node below it and from each position's embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neuronwise.locate.cut_pass import CutPass
from neuronwise.locate.graph import ROOT, Edge

CHUNK = 16  # backward passes done side by side


def edges_of(cut: CutPass) -> list[Edge]:
    """All edges between places: the root, nodes, and the positions of the prompt."""
    into = Edges(cut)
    return [edge for numbers, names, _, scale in places(cut) for edge in into(numbers, names, scale)]


def places(cut: CutPass) -> Iterator[tuple[Tensor, list[str], list[int], Tensor]]:
    """The places that edges lead to: the numbers (n,) there, names, positions, and relevance / number."""
    yield cut.value.unsqueeze(0), [ROOT], [cut.last], torch.ones(1)
    for writer, members in cut.by_writer.items():
        scores = torch.tensor([member.score for member in members])
        a = cut.before[writer].detach().float().cpu()
        yield cut.before[writer], [*map(str, members)], [int(m.position or 0) for m in members], scores / a


class Edges:
    """Edges into places, as a pass with every node cut gives them."""

    def __init__(self, cut: CutPass) -> None:
        self.cut = cut
        self.sources = list(cut.leaves)
        self.inputs = [cut.embedded, *(cut.leaves[writer] for writer in self.sources)]

    def __call__(self, outputs: Tensor, names: Sequence[str], scale: Tensor) -> Iterator[Edge]:
        """Edges into ``outputs`` (n,): input · gradient · scale, from nodes and from the embeddings."""
        if not outputs.requires_grad:
            return
        for start in range(0, len(outputs), CHUNK):
            pulled = self.cut.backward(outputs[start : start + CHUNK], self.inputs)
            yield from self.read(pulled, names[start : start + CHUNK], scale[start : start + CHUNK])

    def read(self, pulled: Sequence[Tensor | None], names: Sequence[str], factors: Tensor) -> Iterator[Edge]:
        """Edges into ``names`` (n,) from gradients (n, …) by ``inputs``, times ``factors`` (n,)."""
        embedded, *others = pulled
        if embedded is not None:
            shares = (embedded.float() * self.cut.embedded.detach().float()).sum(-1).reshape(len(names), -1).cpu()
            weighted = shares * factors[:, None]
            for at, name in enumerate(names):
                for position in range(min(self.cut.last + 1, weighted.shape[1])):
                    if weighted[at, position]:
                        yield Edge(f"@{position}", name, float(weighted[at, position]))
        for writer, gradient in zip(self.sources, others, strict=True):
            if gradient is None:
                continue
            weighted = (gradient.float() * self.cut.leaves[writer].detach().float()).cpu() * factors[:, None]
            for at, name in enumerate(names):
                for node, weight in zip(self.cut.by_writer[writer], weighted[at].tolist(), strict=True):
                    if weight:
                        yield Edge(str(node), name, weight)
