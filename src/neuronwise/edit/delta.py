"""What an edit changes: a low-rank difference of one writer's weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuronwise.errors import EditError, NonFiniteError
from neuronwise.model.blocks import dense_weight, expert_weight
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron

Place = tuple[int, str, int | None]  # layer, path of the writer in it, routed expert


@dataclass(frozen=True)
class Delta:
    """ΔW_down = left · right of the writer ``path`` in ``layer`` (of routed expert ``expert``), in float32.

    ``left`` is (d, r). An edit of r neurons has ``units`` (r,): column units[j] gains left[:, j], which is a ``right``
    of one-hot rows. Any other edit has ``right`` (r, f).
    """

    layer: int
    path: str
    left: Tensor
    units: Tensor | None = None
    right: Tensor | None = None
    expert: int | None = None

    def __post_init__(self) -> None:
        if (self.units is None) == (self.right is None):
            raise EditError("A delta has either units or a right factor.")
        for factor in (self.left, self.right):
            if factor is not None and not torch.isfinite(factor).all():
                raise NonFiniteError(
                    f"The edit of layer {self.layer} holds numbers that are not finite; it is refused."
                )

    @property
    def rank(self) -> int:
        return self.left.shape[1]

    @property
    def key(self) -> Place:
        return self.layer, self.path, self.expert

    def right_factor(self, width: int) -> Tensor:
        """(r, f)."""
        if self.right is not None:
            return self.right
        assert self.units is not None
        return nn.functional.one_hot(self.units, width).float()

    def add_to(self, weight: Tensor) -> None:
        """Add this delta to ``weight`` (d, f) float32, in place."""
        if self.units is not None:
            weight.index_add_(1, self.units.to(weight.device), self.left.to(weight.device))
        else:
            assert self.right is not None
            weight += self.left.to(weight.device) @ self.right.to(weight.device)


def columns(deltas: tuple[Delta, ...], width: int) -> Tensor:
    """The columns that some deltas of one writer change: their units, or all."""
    if any(delta.units is None for delta in deltas):
        return torch.arange(width)
    return torch.cat([delta.units for delta in deltas if delta.units is not None]).unique()


def writer_view(model: Model, delta: Delta) -> Tensor:
    """The (d, f) view of the weights that a delta changes; raises ``EditError`` when the model has no such writer."""
    if not 0 <= delta.layer < model.num_layers:
        raise EditError(f"The edit is of layer {delta.layer}; {model.name} has layers 0 to {model.num_layers - 1}.")
    block = model.blocks[delta.layer]
    if delta.expert is not None:
        routed, index = block.expert(delta.expert)
        view = expert_weight(routed, index)
    else:
        writer = next((writer for writer in block.dense if writer.path == delta.path), None)
        if writer is None:
            raise EditError(f"Layer {delta.layer} of {model.name} has no writer '{delta.path}'; the edit is another's.")
        view = dense_weight(writer)
    height, width = view.shape
    fits = delta.left.shape[0] == height and (
        delta.right.shape[1] == width if delta.right is not None else int(delta.units.max()) < width  # type: ignore[union-attr]
    )
    if not fits:
        raise EditError(
            f"The edit does not fit layer {delta.layer} of {model.name}: its weights there are {height} × {width}."
        )
    return view


def by_writer(model: Model, neurons: Iterable[Neuron]) -> dict[Place, list[Neuron]]:
    """Neurons by the writer whose columns they are; raises ``NeuronError`` for one that the model lacks."""
    groups: dict[Place, list[Neuron]] = {}
    for neuron in neurons:
        model.require(neuron)
        groups.setdefault(place(model, neuron), []).append(neuron)
    return groups


def place(model: Model, neuron: Neuron) -> Place:
    block = model.blocks[neuron.layer]
    if neuron.expert is not None:
        return neuron.layer, block.expert(neuron.expert)[0].path, neuron.expert
    for writer, start in block.dense_from():
        if start <= neuron.unit < start + writer.width:
            return neuron.layer, writer.path, None
    raise AssertionError("a required neuron has a writer")


def columns_of(model: Model, neurons: Iterable[Neuron]) -> Tensor:
    """Columns, in their writer's own weights, of neurons of one writer: units count over a layer's dense writers."""
    starts = {
        (layer, writer.path): start for layer, block in enumerate(model.blocks) for writer, start in block.dense_from()
    }
    own = [n.unit - (0 if n.expert is not None else starts[n.layer, place(model, n)[1]]) for n in neurons]
    return torch.tensor(own, dtype=torch.long)


def writer_of(model: Model, layer: int, path: str) -> nn.Module:
    """The module of a dense writer."""
    return next(writer.module for writer in model.blocks[layer].dense if writer.path == path)
