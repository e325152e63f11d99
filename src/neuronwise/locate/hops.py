"""Hops: which attention head brought relevance to a place last, and from where it came.

Two passes under the same rules and cuts. In one all heads' outputs are leaves too: the gradient of a place by a head's
output there is what the head hands to it with no other head between. In the other they are not: what was handed over
goes on backward from the head's output to nodes and embeddings. Both are linear, so parts add up to edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from neuronwise.locate.cut_pass import CutPass
from neuronwise.locate.edges import CHUNK, Edges, places
from neuronwise.locate.graph import Edge
from neuronwise.model.heads import Attention
from neuronwise.neurons import Head

NARROW = 4  # backward passes side by side, each with a gradient of every head at every position


@dataclass(frozen=True)
class Hop:
    """The part ``weight`` of a place's relevance that ``head`` brought to its ``position`` last.

    ``handed`` (size,) is what the place makes of the head's output: ⟨handed, output⟩ = weight.
    """

    place: str
    position: int
    head: Head
    weight: float
    attention: Attention = field(repr=False)
    handed: Tensor = field(repr=False)


def hops_of(cut: CutPass, count: int) -> list[Hop]:
    """The ``count`` hops of largest |weight|, from a pass in which heads are cut."""
    found: list[Hop] = []
    for numbers, names, positions, scale in places(cut):
        for start in range(0, len(names), NARROW):
            span = slice(start, start + NARROW)
            if numbers.requires_grad:
                found += _into(cut, numbers[span], names[span], positions[span], scale[span])
        found = sorted(found, key=lambda hop: -abs(hop.weight))[:count]
    return found


def _into(
    cut: CutPass, numbers: Tensor, names: Sequence[str], positions: Sequence[int], scale: Tensor
) -> Iterator[Hop]:
    pulled = cut.backward(numbers, list(cut.heads.values()))
    for (own, outputs), gradients in zip(cut.heads.items(), pulled, strict=True):
        if gradients is None:
            continue
        read = outputs.detach().reshape(-1, own.writer.width)
        for at, (name, position) in enumerate(zip(names, positions, strict=True)):
            handed = gradients[at].reshape(-1, own.writer.width)[position].float() * float(scale[at])
            parts = own.apart(handed * read[position].float()).sum(-1).tolist()
            for head, weight, slope in zip(own.heads, parts, own.apart(handed), strict=True):
                if weight:
                    yield Hop(name, position, head, weight, own, slope.clone())


def by_heads(edges: Sequence[Edge], cut: CutPass, hops: Sequence[Hop]) -> list[Edge]:
    """The edges with the part of each that every hop carries; ``cut`` is a pass in which heads are not cut."""
    into, parts = Edges(cut), dict[tuple[str, str], dict[str, float]]()
    ordered = sorted(hops, key=lambda hop: hop.head)  # those of one module share a pass
    for start in range(0, len(ordered), CHUNK):
        part = ordered[start : start + CHUNK]
        modules = [own for own in dict.fromkeys(hop.attention for hop in part) if cut.mixed[own].requires_grad]
        seeds = [_seeds(part, own, cut.mixed[own]) for own in modules]
        if modules:
            pulled = cut.pulled([cut.mixed[own] for own in modules], seeds, into.inputs)
            numbered = [str(at) for at in range(len(part))]
            for edge in into.read(pulled, numbered, torch.ones(len(part))):
                hop = part[int(edge.target)]
                parts.setdefault((edge.source, hop.place), {})[str(hop.head)] = edge.weight
    return [replace(edge, heads=_ranked(parts.get((edge.source, edge.target), {}))) for edge in edges]


def _seeds(hops: Sequence[Hop], own: Attention, mixed: Tensor) -> Tensor:
    """(n, *mixed.shape): what each hop hands to its head's output, 0 for another module's head."""
    seeds = torch.zeros(len(hops), mixed.numel() // own.writer.width, own.writer.width, device=mixed.device)
    for at, hop in enumerate(hops):
        if hop.attention == own:
            seeds[at, hop.position, own.columns(hop.head)] = hop.handed.to(seeds.device)
    return seeds.to(mixed.dtype).reshape(len(hops), *mixed.shape)


def _ranked(parts: dict[str, float]) -> dict[str, float]:
    return dict(sorted(parts.items(), key=lambda part: -abs(part[1])))
