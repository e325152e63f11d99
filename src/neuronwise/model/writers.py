"""Writers: the matrices whose columns are value vectors, one noun for every layout of a feed-forward block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuronwise.errors import ModelError, NeuronError
from neuronwise.model.activations import Activations
from neuronwise.model.weights import is_plain, linear_bias, linear_weight, materialized, under_adapter
from neuronwise.neurons import Neuron

PIECE = 2**18  # numbers of a matrix that are made float32 at a time

Site = tuple[int, str]  # (layer, path in it) of the module whose output carries what a writer writes


@dataclass(frozen=True)
class Experts:
    """The routed experts of a layer that one module computes; their writers are ``Writer`` s.

    They share one parameter (``parameter``, a path from ``module``), or each has a linear module (``linears``).
    ``first`` is the number of the first of them; ``unit`` is the module to call for one token.
    """

    layer: int
    path: str
    module: nn.Module = field(repr=False, compare=False)
    first: int
    count: int
    width: int
    hidden_size: int
    unit: nn.Module = field(repr=False, compare=False)
    unit_path: str
    parameter: str | None = None
    transposed: bool = False  # the parameter is (E, f, d) instead of (E, d, f)
    linears: tuple[nn.Module, ...] = field(default=(), repr=False, compare=False)

    def writer(self, expert: int) -> Writer:
        """The writer of the expert that is addressed as number ``expert`` of the layer."""
        module = self.linears[expert - self.first] if self.linears else self.module
        return Writer(self.layer, expert, module, 0, self.width, self.path, self.hidden_size, self.site, self)

    @property
    def site(self) -> Site:
        """Where the module's output carries what the experts write."""
        return self.layer, self.unit_path

    @property
    def writers(self) -> list[Writer]:
        """One writer for each expert."""
        return [self.writer(expert) for expert in range(self.first, self.first + self.count)]

    def beside(self, writers: Iterable[Writer]) -> list[Writer]:
        """The dense ones of ``writers`` inside of ``unit``: what they write is in its output too (Llama 4)."""
        parts = {id(module) for module in self.unit.modules()}
        return [writer for writer in writers if writer.expert is None and id(writer.module) in parts]

    @property
    def unit_bias(self) -> Tensor | None:
        """(d,) a bias that ``unit`` adds to the experts' sum (JetMoE)."""
        bias = getattr(self.unit, "bias", None)
        return bias.detach() if isinstance(bias, Tensor) and bias.shape == (self.hidden_size,) else None

    @property
    def holder(self) -> tuple[nn.Module, str]:
        """The module that holds the shared parameter, and the parameter's name in it."""
        path, _, name = (self.parameter or "").rpartition(".")
        return self.module.get_submodule(path), name

    def cut(self, parameter: Tensor, index: int) -> Tensor:
        """(d, f): the view of one expert's output projection in the shared parameter."""
        rows = parameter.view(self.count, -1, parameter.shape[-1])[index]
        return rows.T if self.transposed else rows


class Fired(NamedTuple):
    """What a writer's neurons did at several rows.

    ``rows`` are the rows at which the writer took part; ``values`` (rows, width) float32 is what multiplied the value
    vectors there; ``weights`` (rows,) the router's part of it, 1 for dense neurons.
    """

    rows: list[int]
    values: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Writer:
    """One matrix (d, width) whose columns are the value vectors of neurons.

    A dense W_down, one of several in a layer, or one routed expert. ``first`` is the unit of its first neuron in the
    layer. ``module`` is the linear module that writes, or the experts' module where they share one parameter; ``path``
    is its place in the layer. Two writers are equal when they are at the same place of a model.

    >>> for writer in model.writers:
    ...     a = writer.fired(run.activations(0))     # (width,), None where the router chose other experts
    """

    layer: int
    expert: int | None
    module: nn.Module = field(repr=False, compare=False)
    first: int
    width: int
    path: str
    hidden_size: int = field(repr=False, compare=False)
    site: Site = field(repr=False, compare=False)
    experts: Experts | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"L{self.layer}.{self.path}" + ("" if self.expert is None else f".E{self.expert}")

    @property
    def vectors(self) -> Tensor:
        """(d, width): column i is what neuron i writes. A view of the weights, a copy where they are quantized,
        offloaded or under an adapter."""
        if self.experts is None or self.experts.parameter is None:
            return linear_weight(self.module)
        owner, name = self.experts.holder
        with materialized(self.experts.module):
            parameter: Tensor = getattr(owner, name).detach()
        return self.experts.cut(parameter, self._index)

    @property
    def bias(self) -> Tensor | None:
        """(d,) what is written beside the value vectors, before the router's weight; None without one."""
        if self.experts is None or self.experts.parameter is None:
            return linear_bias(self.module)
        owner, name = self.experts.holder
        bias = getattr(owner, f"{name}_bias", None)
        return bias.detach()[self._index] if isinstance(bias, Tensor) and bias.dim() == 2 else None

    @property
    def neurons(self) -> tuple[Neuron, ...]:
        """The addresses of its neurons, one for each column."""
        return tuple(map(self.neuron, range(self.width)))

    def neuron(self, column: int) -> Neuron:
        """The address of the neuron whose value vector is ``column``."""
        return Neuron(self.layer, self.first + column, self.expert)

    def __contains__(self, neuron: Neuron) -> bool:
        here = (neuron.layer, neuron.expert) == (self.layer, self.expert)
        return here and self.first <= neuron.unit < self.first + self.width

    def columns(self, neurons: Iterable[Neuron]) -> Tensor:
        """(n,) the columns of some of its neurons; raises ``NeuronError`` for another writer's."""
        listed = list(neurons)
        other = next((neuron for neuron in listed if neuron not in self), None)
        if other is not None:
            raise NeuronError(f"{other} is not a neuron of {self}.")
        return torch.tensor([neuron.unit - self.first for neuron in listed], dtype=torch.long)

    def fired(self, activations: Activations, row: int = 0) -> Tensor | None:
        """(width,) float32: what multiplied the value vectors at a recorded row: a, or router weight · a.

        None where the row was not routed to this expert, or the layer was not recorded.
        """
        if self.expert is not None:
            rows = activations.routed.get(self.layer)
            record = None if rows is None else rows[row].get(self.expert)
            return None if record is None else record.written
        dense = activations.dense.get(self.layer)
        return None if dense is None else dense[row, self.first : self.first + self.width].float()

    def fired_rows(self, activations: Activations) -> Fired:
        """``fired`` at all recorded rows at once, without those that were not routed to this expert."""
        if self.expert is None:
            dense = activations.dense.get(self.layer)
            if dense is not None:
                values = dense[:, self.first : self.first + self.width].float()
                return Fired(list(range(len(values))), values, torch.ones(len(values)))
        records = {
            number: row[self.expert]
            for number, row in enumerate(activations.routed.get(self.layer, ()))
            if self.expert in row
        }
        if not records:
            return Fired([], torch.zeros(0, self.width), torch.zeros(0))
        weights = torch.tensor([record.weight for record in records.values()])
        return Fired(list(records), torch.stack([record.written for record in records.values()]), weights)

    def written(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """(…, d) float32: what is written for activations (…, width), the bias included.

        ``weights`` (…,) is the router's part of the values, by which the bias counts; without it the bias counts whole.
        """
        vectors, bias = self.vectors, self.bias
        out = values.to(vectors.device).float() @ vectors.float().T
        if bias is None:
            return out
        bias = bias.to(out.device).float()
        return out + (bias if weights is None else weights.to(out.device)[..., None] * bias)

    def project(self, directions: Tensor) -> Tensor:
        """⟨direction, value vector⟩ of every neuron: (T, d) → (T, width) float32, on the CPU."""
        vectors = self.vectors
        directions = directions.to(vectors.device).float()
        if vectors.dtype == torch.float32:
            return (directions @ vectors).cpu()
        # Piece by piece: a float32 copy of a whole matrix beside the weights is what they were made small to avoid.
        pieces = vectors.split(max(PIECE // vectors.shape[0], 1), dim=1)
        return torch.cat([(directions @ piece.float()).cpu() for piece in pieces], dim=1)

    @property
    def holder(self) -> tuple[nn.Module, str]:
        """The module that holds the weights, and the name of the parameter there."""
        if self.experts is None or self.experts.parameter is None:
            return under_adapter(self.module), "weight"
        return self.experts.holder

    def cut(self, parameter: Tensor) -> Tensor:
        """(d, width): the view of its vectors in the parameter that ``holder`` names."""
        if self.experts is not None and self.experts.parameter is not None:
            return self.experts.cut(parameter, self._index)
        return parameter.T if hasattr(self.holder[0], "nx") else parameter

    @property
    def editable(self) -> bool:
        """Whether ``own_weight`` can be had: the weights are in memory as plain numbers."""
        module, name = self.holder
        return is_plain(getattr(module, name, None))

    @property
    def own_weight(self) -> Tensor:
        """(d, width): a view into the weights themselves, so that writing into it changes the model.

        Raises ``ModelError`` where they are offloaded or quantized.
        """
        module, name = self.holder
        if not self.editable:
            raise ModelError(
                f"The weights of {self} are offloaded or quantized, so they cannot be changed in place; load the "
                "model into memory as it is."
            )
        return self.cut(getattr(module, name).detach())

    @property
    def _index(self) -> int:
        assert self.experts is not None
        assert self.expert is not None
        return self.expert - self.experts.first
