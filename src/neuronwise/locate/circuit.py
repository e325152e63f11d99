"""A circuit: the neurons, each at its position, through which an answer came about, and what passes between them.

Nodes are the (neuron, position) pairs of largest |relevance|; leaves are the positions of the prompt (patches of an
image, tokens of a text); the root is the target's logit. An edge m → n is the part of n's relevance that comes
directly from m: m · ∂̃a_n/∂m · relevance(n) / a_n, one backward pass from a_n under the rules of relevance propagation,
cut at every selected node below it ([RelP], [TRL]). What comes from elsewhere, neurons that are not selected and
biases, is a node's rest, so that its incoming edges and its rest add up to its relevance.

What passes from one position to another passes through attention heads. A part of an edge belongs to the head that
brought it to the target's position last; the rest of the edge came by other heads, or within the position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neuronwise.errors import MethodError
from neuronwise.locate.contrast import Contrast
from neuronwise.locate.cut_pass import CutPass
from neuronwise.locate.edges import CHUNK, edges_of
from neuronwise.locate.graph import ROOT, Circuit, Edge, Leaf
from neuronwise.locate.hops import by_heads, hops_of
from neuronwise.locate.locating import describe
from neuronwise.locate.memory import require_memory
from neuronwise.locate.method import require_own
from neuronwise.locate.positions import strongest
from neuronwise.locate.relp import readout_weights, relp
from neuronwise.model import Model
from neuronwise.model.heads import attentions
from neuronwise.model.modes import computes
from neuronwise.model.run import Run, Target
from neuronwise.neurons import NeuronSet

MOST = 5000  # nodes


@computes
def circuit(
    model: Model,
    run: Run,
    concept: str | None = None,
    *,
    target: str | int | None = None,
    position: int | None = None,
    occurrence: int = 0,
    nodes: int = 100,
    heads: int = 100,
    contrast: Contrast = None,
) -> Circuit:
    """The circuit of ``nodes`` (neuron, position) pairs behind a word of the run's text, or behind any target token.

    ``heads``: how many pairs of a place and the attention head that brought relevance to it last get numbers of their
    own (``Circuit.hops``, ``Edge.heads``), the strongest; 0 for none. ``contrast`` as for ``relp``. One backward pass
    for each node, and two more with heads: one for each node and one for each pair. Raises ``MethodError`` for an
    architecture with a mixer of positions that has no rule. What would need more memory than is free is refused with
    the estimate, before anything is computed.
    """
    if not 1 <= nodes <= MOST:
        raise MethodError(f"nodes is {nodes}; ask for 1 to {MOST} nodes, each of which takes a backward pass.")
    if not 0 <= heads <= MOST:
        raise MethodError(
            f"heads is {heads}; ask for 0 to {MOST} pairs of a place and a head, each of which takes a backward pass."
        )
    require_own(model, [run])
    wanted = run.target(concept, target, position, occurrence)
    told = min(heads, nodes * sum(one.count for one in attentions(model)))
    require_memory(model, run.length, nodes, CHUNK, graphs=2 if told else 1)
    weights = readout_weights(model, run, wanted, contrast)
    found = _strongest(model, run, wanted, contrast, nodes)
    options = {"nodes": nodes, "heads": heads, "contrast": contrast}
    record = describe(model, run, wanted, "circuit", options)
    if heads and not attentions(model):
        notes = [record.get("note"), f"The attention heads of {model.name} cannot be told apart, so edges name none."]
        record["note"] = " ".join(filter(None, notes))
    found = NeuronSet(found.members, record)
    cut = CutPass(run, wanted, weights, found)
    edges = edges_of(cut)
    hops = hops_of(CutPass(run, wanted, weights, found, cut_heads=True), told) if told else []
    brought: dict[str, dict[str, float]] = {}
    for hop in hops:
        brought.setdefault(hop.place, {})[str(hop.head)] = hop.weight
    return _circuit(cut, found, by_heads(edges, cut, hops), brought)


def _strongest(model: Model, run: Run, target: Target, contrast: Contrast, count: int) -> NeuronSet:
    """The ``count`` (neuron, position) pairs of largest |a · ∂̃y/∂a| over all writers."""
    (parts,) = relp(model, run, [target], contrast=contrast)
    found = strongest(parts, count, by_size=True)
    return NeuronSet(tuple(member for member in found if member.score))


def _circuit(cut: CutPass, nodes: NeuronSet, edges: Sequence[Edge], hops: Mapping[str, Mapping[str, float]]) -> Circuit:
    """The edges sorted, the strongest first, and what no edge carries of each place."""
    value = float(cut.value.detach())
    rest = {str(member): member.score for member in nodes} | {ROOT: value}
    for edge in edges:
        rest[edge.target] -= edge.weight
    ranked = sorted(edges, key=lambda edge: (-abs(edge.weight), edge.source, edge.target))
    return Circuit(nodes, _leaf_places(cut.run, cut.last), tuple(ranked), rest, value, nodes.record, cut.run, hops=hops)


def _leaf_places(run: Run, last: int) -> tuple[Leaf, ...]:
    image = set(run.image_rows)
    return tuple(
        Leaf(position, "image" if position in image else "token", token)
        for position, token in enumerate(run.tokens[: last + 1])
    )
