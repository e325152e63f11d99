"""What an edit changes: differences of writers' weights, in some columns or of low rank, and their record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from neuronwise.edit.side_memory import SideMemory
from neuronwise.errors import EditError, NonFiniteError
from neuronwise.model.model import Model
from neuronwise.model.prompt import Preface
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron

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
        inner = self.units.shape if self.units is not None else self.right.shape[:-1]  # type: ignore[union-attr]
        if self.left.dim() != 2 or inner != self.left.shape[1:]:
            raise EditError(f"The factors of the edit of layer {self.layer} do not belong together: {self._shapes()}.")
        for factor in (self.left, self.right):
            if factor is not None and not torch.isfinite(factor).all():
                raise NonFiniteError(
                    f"The edit of layer {self.layer} holds numbers that are not finite; it is refused."
                )

    def _shapes(self) -> str:
        """The factors' shapes, and those that fit each other."""
        given = {"left": self.left, "units": self.units, "right": self.right}
        told = " and ".join(f"{name} {tuple(of.shape)}" for name, of in given.items() if of is not None)
        return f"{told}; give left (d, r) and {'right (r, f)' if self.units is None else 'units (r,)'}"

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
    def key(self) -> tuple[int, str, int | None]:
        """(layer, path of the writer in it, routed expert): where it belongs."""
        return self.layer, self.path, self.expert

    @property
    def numbers(self) -> int:
        """How many numbers of the weights it changes."""
        return self.left.shape[0] * (self.rank if self.right is None else self.right.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same change of the same place, however often it was loaded."""
        whole = hashlib.sha256(repr((self.key, tuple(self.left.shape))).encode())
        for factor in (self.left, self.units, self.right):
            if factor is not None:
                whole.update(factor.detach().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()

    def within(self, weight: Tensor) -> float:
        """⟨W, ΔW⟩ of a (d, width) weight: it grows by ‖ΔW‖² when the delta is added."""
        left = self.left.to(weight.device).double()
        if self.units is not None:
            return float((weight[:, self.units.to(weight.device)].double() * left).sum())
        assert self.right is not None
        return float(((left.T @ weight.double()) * self.right.to(weight.device).double()).sum())

    @property
    def square(self) -> float:
        """‖ΔW‖², the sum of the squares of all its numbers."""
        left = self.left.double()
        if self.right is None:
            return float(left.square().sum())
        return float(((left.T @ left) * (self.right.double() @ self.right.double().T)).sum())

    @property
    def empty(self) -> bool:
        """Whether all its numbers are zero, so that nothing changes: facts that move no weight have such deltas."""
        return not self.left.any() or (self.right is not None and not self.right.any())

    def fits(self, hidden_size: int, width: int) -> bool:
        """Whether it is of a writer (d, f)."""
        if self.right is not None:
            within = self.right.shape[1] == width
        else:
            within = self.units is not None and all(0 <= int(unit) < width for unit in self.units)
        return within and self.left.shape[0] == hidden_size

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


@dataclass(frozen=True, eq=False)
class Recorded:
    """Deltas with the record of how they were made, and norms of some of the model's columns before them.

    Beside or in place of changes of weights: ``prefaces`` are what it puts before every prompt, ``memories`` what it
    keeps beside writers.
    """

    deltas: tuple[Delta, ...]
    record: Record = field(default_factory=dict)
    norms: Mapping[str, Tensor] = field(default_factory=dict)
    prefaces: tuple[Preface, ...] = ()
    memories: tuple[SideMemory, ...] = ()

    def __repr__(self) -> str:
        layers = sorted({part.layer for part in (*self.deltas, *self.memories)})
        return f"Edit({self.record.get('method', '?')}, layers {layers}, {self.parameters_changed} numbers)"

    @property
    def empty(self) -> bool:
        """Whether it has nothing to change."""
        return not (self.deltas or self.prefaces or self.memories)

    @property
    def parameters_changed(self) -> int:
        """How many numbers of the weights it changes."""
        return sum(delta.numbers for delta in self.deltas)

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same changes, however often they were loaded, and whatever their record says."""
        parts = [*sorted(delta.fingerprint for delta in self.deltas), *map(repr, self.prefaces)]
        parts += sorted(memory.fingerprint for memory in self.memories)
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def require_weights_alone(edit: Recorded, form: str) -> None:
    """Raise ``EditError`` for an edit that is more than changes of weights; ``form`` is what cannot hold it."""
    if edit.prefaces:
        raise EditError(f"This edit puts text before prompts, which {form} cannot hold; edit.save keeps all of it.")
    if edit.memories:
        raise EditError(
            f"This edit keeps a memory beside weights, which {form} cannot hold; edit.save keeps all of it."
        )


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
    lefts, rights = [], []
    for delta in deltas:
        left = delta.left.to(like)
        if delta.units is not None:
            total.index_add_(1, torch.searchsorted(touched, delta.units.cpu()).to(like.device), left)
        else:
            assert delta.right is not None
            lefts.append(left)
            rights.append(delta.right.to(like)[:, touched.to(like.device)])
    if lefts:  # one product for all of them: a model may carry a thousand
        total += torch.cat(lefts, dim=1) @ torch.cat(rights)
    return total


def writer_of(model: Model, part: Delta | SideMemory) -> Writer:
    """The writer of a part of an edit; raises ``EditError`` when the model has none of that name and shape."""
    layer, path, expert = part.key
    if not 0 <= layer < model.num_layers:
        raise EditError(f"The edit is of layer {layer}; {model.name} has layers 0 to {model.num_layers - 1}.")
    block = model.blocks[layer]
    if expert is not None and not 0 <= expert < block.num_experts:
        raise EditError(
            f"The edit does not fit {model.name}: layer {layer} has {block.num_experts} routed experts; there is "
            f"no expert {expert}."
        )
    writer = next((w for w in block.writers if (w.path, w.expert) == (path, expert)), None)
    if writer is None:
        raise EditError(f"Layer {layer} of {model.name} has no writer '{path}'; the edit belongs to another model.")
    if not part.fits(writer.hidden_size, writer.width):
        raise EditError(
            f"The edit does not fit layer {layer} of {model.name}: "
            f"its weights there are {writer.hidden_size} × {writer.width}."
        )
    return writer


def deltas_of(model: Model, changes: Mapping[Neuron, Tensor]) -> tuple[Delta, ...]:
    """Deltas that add a vector (d,) to the value vector of each neuron."""
    return tuple(
        Delta(
            writer.layer, writer.path, torch.stack([changes[neuron] for neuron in members], dim=1),
            units=writer.columns(members), expert=writer.expert,
        )
        for writer, members in model.by_writer(changes).items()
    )  # fmt: skip


def value_vectors(model: Model, neurons: Sequence[Neuron]) -> Tensor:
    """(k, d) float32, on the CPU: the value vectors of some neurons, each writer's weights being read once."""
    found = torch.empty(len(neurons), model.hidden_size)
    order = {neuron: row for row, neuron in enumerate(neurons)}
    for writer, members in model.by_writer(neurons).items():
        vectors = writer.vectors.detach()
        columns = vectors[:, writer.columns(members).to(vectors.device)]
        found[[order[neuron] for neuron in members]] = columns.T.float().cpu()
    return found


def neurons_of(model: Model, delta: Delta) -> list[Neuron]:
    """The neurons whose value vectors a delta changes: those of its columns, or all of its writer."""
    writer = writer_of(model, delta)
    return list(writer.neurons if delta.units is None else map(writer.neuron, delta.units.tolist()))
