"""A circuit as a value: nodes, leaves and weighted edges, saved as JSON and shown as a page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronwise.errors import NeuronError, NeuronwiseError, NonFiniteError
from neuronwise.files import read_json, write_json
from neuronwise.neurons import NeuronSet, ScoredNeuron, snippet
from neuronwise.registry.arguments import checked

if TYPE_CHECKING:
    from neuronwise.model.run import Run

SCHEMA = "neuronwise.circuit/1"
ROOT = "target"


@dataclass(frozen=True)
class Leaf:
    """A position of the prompt: ``kind`` is "image" or "token", ``label`` what stands there (a token's text)."""

    position: int
    kind: str
    label: str


@dataclass(frozen=True)
class Edge:
    """The part of ``target``'s relevance that comes directly from ``source``, in logits.

    Both are places of the circuit: "L23.U8083@14" a node, "@5" the leaf at position 5, "target" the root. ``heads``:
    the parts of the weight that single attention heads brought to the target's position last, strongest first.
    """

    source: str
    target: str
    weight: float
    heads: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Circuit:
    """Nodes with their relevance as score, leaves, and edges, strongest first.

    ``rest`` is, for each place that edges lead to, the part of its relevance that no edge carries. ``hops`` says, for
    places, how much of their relevance which attention head brought to their position last. ``value`` is the
    root's: the target's logit less that of its alternatives. ``record`` says how the circuit was made; ``run``, which
    is not saved, is what it was found in.
    """

    nodes: NeuronSet
    leaves: tuple[Leaf, ...]
    edges: tuple[Edge, ...]
    rest: Mapping[str, float]
    value: float
    record: Mapping[str, Any] = field(default_factory=dict)
    run: Run | None = field(default=None, repr=False, compare=False)
    hops: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Circuit({self.record.get('target')!r}: {len(self.nodes)} nodes, {len(self.edges)} edges)"

    def _repr_html_(self) -> str:
        """For notebooks: the strongest edges as a table."""
        rows = ([snippet.text(one) for one in (edge.source, edge.target, edge.weight)] for edge in self.edges)
        note = f"{len(self.nodes)} nodes, {len(self.edges)} edges; value {self.value:.3g}"
        title = f"Circuit of {self.record.get('target')!r}"
        return snippet.table(title, ("from", "to", "logits"), rows, len(self.edges), note)

    def into(self, place: str) -> tuple[Edge, ...]:
        """The edges that lead to a place."""
        return tuple(edge for edge in self.edges if edge.target == place)

    def out_of(self, place: str) -> tuple[Edge, ...]:
        """The edges that leave a place."""
        return tuple(edge for edge in self.edges if edge.source == place)

    def to_dict(self) -> dict[str, Any]:
        """The circuit as one JSON object of schema ``neuronwise.circuit/1`` (circuit.schema.json)."""
        return {
            "schema": SCHEMA,
            **self.record,
            "value": self.value,
            "nodes": [
                {**node.to_row(), "place": str(node), "rest": self.rest[str(node)], **self._heads(str(node))}
                for node in self.nodes
            ],
            "leaves": [asdict(leaf) for leaf in self.leaves],
            "edges": [_row(edge) for edge in self.edges],
            "rest": self.rest[ROOT],
            **self._heads(ROOT),
        }

    def _heads(self, place: str) -> dict[str, Any]:
        return {"heads": dict(self.hops[place])} if place in self.hops else {}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Circuit:
        """Read what ``to_dict`` gave; raises ``NeuronwiseError`` for anything else."""
        try:
            if content["schema"] != SCHEMA:
                raise NeuronwiseError(
                    f"This circuit has the form {content['schema']!r}; this version reads {SCHEMA!r}."
                )
            own = ("schema", "value", "nodes", "leaves", "edges", "rest", "heads")
            record = {name: value for name, value in content.items() if name not in own}
            nodes = NeuronSet(tuple(ScoredNeuron.from_row(row) for row in content["nodes"]), record)
            rest = {row["place"]: row["rest"] for row in content["nodes"]} | {ROOT: content["rest"]}
            leaves = tuple(Leaf(**row) for row in content["leaves"])
            edges = tuple(Edge(**row) for row in content["edges"])
            rows = {row["place"]: row for row in content["nodes"]} | {ROOT: content}
            hops = {place: row["heads"] for place, row in rows.items() if "heads" in row}
            return cls(nodes, leaves, edges, rest, content["value"], record, hops=hops)
        except (KeyError, TypeError, AttributeError, NeuronError, NonFiniteError) as error:
            raise NeuronwiseError("This is not a circuit saved by neuronwise, or it is damaged.") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the circuit as JSON, whole or not at all."""
        write_json(path, self.to_dict())

    @classmethod
    @checked
    def load(cls, path: str | os.PathLike[str]) -> Circuit:
        """Read what ``save`` wrote; raises ``NeuronwiseError`` for a missing or damaged file."""
        content = read_json(path, "circuit", finite=True)
        try:
            return cls.from_dict(content)
        except NeuronwiseError as error:
            raise NeuronwiseError(f"'{path}': {error}") from error

    def page(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``index.html`` and ``circuit.json`` into a folder and return the page's path.

        Raises ``NeuronwiseError`` for a circuit that was loaded from a file: its page shows the run.
        """
        if self.run is None:
            raise NeuronwiseError("This circuit was loaded without its run; find it again to draw its page.")
        return import_module("neuronwise.report.circuit").write_circuit(directory, self)


def _row(edge: Edge) -> dict[str, Any]:
    row = asdict(edge)
    return row if edge.heads else {name: row[name] for name in ("source", "target", "weight")}
