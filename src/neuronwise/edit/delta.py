"""What an edit changes: a difference of one writer's weights, in some columns or of low rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from neuronwise.errors import EditError, NeuronError, NonFiniteError
from neuronwise.model.blocks import dense_weight, expert_weight
from neuronwise.model.model import Model
from neuronwise.neurons import Neuron

Place = tuple[int, str, int | None]  # layer, path of the writer in it, routed expert
Record: TypeAlias = Mapping[str, Any]  # how an edit was made: plain JSON values


@dataclass(frozen=True)
class Delta:
    """ΔW_down = left · right of the writer ``path`` in ``layer`` (of routed expert ``expert``), in float32.

    ``left`` is (d, r). An edit of r columns (neurons) has ``units`` (r,): column units[j] gains left[:, j], which is
    a ``right`` of one-hot rows. Any other edit has ``right`` (r, f). A difference of full rank is one of columns, see
    ``Delta.of_difference``. Raises ``NonFiniteError`` for numbers that are not finite and ``EditError`` for factors
    that do not belong together.
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
        inner = self.units.shape if self.units is not None else self.right.shape[:1]  # type: ignore[union-attr]
        if self.left.dim() != 2 or tuple(inner) != (self.left.shape[1],):
            raise EditError(f"The factors of the edit of layer {self.layer} do not belong together.")
        for factor in (self.left, self.right):
            if factor is not None and not torch.isfinite(factor).all():
                raise NonFiniteError(
                    f"The edit of layer {self.layer} holds numbers that are not finite; it is refused."
                )

    @classmethod
    def of_difference(cls, layer: int, path: str, difference: Tensor, expert: int | None = None) -> Delta:
        """A dense difference W_new − W_old (d, f), of any rank: the columns in which it is not zero."""
        changed = torch.nonzero(difference.any(dim=0)).flatten().cpu()
        left = difference[:, changed.to(difference.device)].detach().float().cpu().contiguous()
        return cls(layer, path, left, units=changed, expert=expert)

    @property
    def rank(self) -> int:
        """The number of inner dimensions r: columns, or the rank of the two factors."""
        return self.left.shape[1]

    @property
    def key(self) -> Place:
        return self.layer, self.path, self.expert

    @property
    def numbers(self) -> int:
        """How many numbers of the weights it changes."""
        return self.left.shape[0] * (self.rank if self.right is None else self.right.shape[1])

    def factors(self, width: int) -> tuple[Tensor, Tensor]:
        """(d, r) and (r, f) with r ≤ d: what a low-rank adapter holds."""
        if self.right is not None:
            return self.left, self.right
        assert self.units is not None
        if self.rank <= self.left.shape[0]:
            return self.left, nn.functional.one_hot(self.units, width).float()
        whole = torch.zeros(self.left.shape[0], width).index_add_(1, self.units, self.left.float().cpu())
        return torch.eye(self.left.shape[0]), whole

    def written(self, inputs: Tensor) -> Tensor:
        """What it adds to the writer's output: inputs (…, f) → (…, d), in float32."""
        left = self.left.to(inputs.device)
        if self.units is not None:
            return inputs[..., self.units.to(inputs.device)].float() @ left.T
        assert self.right is not None
        return (inputs.float() @ self.right.to(inputs.device).T) @ left.T


def columns(deltas: Sequence[Delta], width: int) -> Tensor:
    """The columns that some deltas of one writer change, in order: their units, or all."""
    if any(delta.units is None for delta in deltas):
        return torch.arange(width)
    if not deltas:
        return torch.zeros(0, dtype=torch.long)
    return torch.cat([delta.units.cpu() for delta in deltas if delta.units is not None]).unique()


def summed(deltas: Sequence[Delta], touched: Tensor, like: Tensor) -> Tensor:
    """(d, touched): the sum of all deltas of one writer in the columns ``touched``, in ``like``'s place and dtype."""
    total = like.new_zeros(like.shape[0], len(touched))
    for delta in deltas:
        left = delta.left.to(like)
        if delta.units is not None:
            total.index_add_(1, torch.searchsorted(touched, delta.units.cpu()).to(like.device), left)
        else:
            assert delta.right is not None
            total += left @ delta.right.to(like)[:, touched.to(like.device)]
    return total


def require_fit(model: Model, delta: Delta) -> None:
    """Raise ``EditError`` when the model has no such writer, or one of another shape."""
    if not 0 <= delta.layer < model.num_layers:
        raise EditError(f"The edit is of layer {delta.layer}; {model.name} has layers 0 to {model.num_layers - 1}.")
    block = model.blocks[delta.layer]
    if delta.expert is not None:
        try:
            writer = block.expert(delta.expert)[0]
        except NeuronError as error:
            raise EditError(f"The edit does not fit {model.name}: {error}") from error
        found = writer if writer.path == delta.path else None
    else:
        found = next((writer for writer in block.dense if writer.path == delta.path), None)
    if found is None:
        raise EditError(f"Layer {delta.layer} of {model.name} has no writer '{delta.path}'; the edit is another's.")
    within = (
        delta.right.shape[1] == found.width
        if delta.right is not None
        else all(0 <= int(unit) < found.width for unit in delta.units)  # type: ignore[union-attr]
    )
    if delta.left.shape[0] != found.hidden_size or not within:
        raise EditError(
            f"The edit does not fit layer {delta.layer} of {model.name}: "
            f"its weights there are {found.hidden_size} × {found.width}."
        )


def writer_view(model: Model, delta: Delta) -> Tensor:
    """The (d, f) weights that a delta changes, for reading; raises ``EditError`` when the model has no such writer."""
    require_fit(model, delta)
    return read_weight(model, delta.key)


def read_weight(model: Model, place: Place) -> Tensor:
    """The (d, f) weights of a writer as they are now: a view, or a copy where they are offloaded or quantized."""
    layer, path, expert = place
    block = model.blocks[layer]
    if expert is not None:
        return expert_weight(*block.expert(expert))
    return dense_weight(next(writer for writer in block.dense if writer.path == path)).detach()


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


def neurons_of(model: Model, delta: Delta) -> list[Neuron]:
    """The neurons whose value vectors a delta changes: those of its columns, or all of its writer."""
    block = model.blocks[delta.layer]
    if delta.expert is not None:
        start, width = 0, block.expert(delta.expert)[0].width
    else:
        start, width = next((start, writer.width) for writer, start in block.dense_from() if writer.path == delta.path)
    units = range(width) if delta.units is None else delta.units.tolist()
    return [Neuron(delta.layer, start + unit, delta.expert) for unit in units]
