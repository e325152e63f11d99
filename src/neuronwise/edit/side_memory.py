"""What an edit may keep beside a writer in place of changing its weights: what is written for activations it knows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuronwise.errors import EditError, NonFiniteError
from neuronwise.model.hooks import Args, Kwargs, Removable, first_tensor

Tensors = Mapping[str, Tensor]
# (all memories of the kind at the writer, its activations (…, f), what it writes (…, d)) → what is written instead
Written = Callable[[Sequence[Tensors], Tensor, Tensor], Tensor]


class Kind(NamedTuple):
    """A kind of memory: the shapes of its tensors by name, in d, f and n (of any size), and how it acts."""

    shapes: Mapping[str, str]
    written: Written


@dataclass(frozen=True, eq=False)
class SideMemory:
    """Float32 ``tensors`` beside the dense writer ``path`` of ``layer``; ``kind`` is one of ``KINDS``.

    It decides at each position by that position's activation alone, so that a batch, a generation with its cache and
    a forced text agree. Raises ``EditError`` for tensors that are not the kind's and ``NonFiniteError``.
    """

    layer: int
    path: str
    kind: str
    tensors: Tensors

    def __post_init__(self) -> None:
        shapes = KINDS[self.kind].shapes if self.kind in KINDS else None
        if shapes is None or {*shapes} != {*self.tensors} or not self._fits(shapes):
            raise EditError(f"The tensors of the edit's memory in layer {self.layer} are no {self.kind!r}.")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.tensors.values()):
            raise NonFiniteError(f"The edit's memory in layer {self.layer} holds numbers that are not finite.")

    def _fits(self, shapes: Mapping[str, str], **sizes: int) -> bool:
        """Whether the tensors have their shapes, each letter standing for one size."""
        found = dict(sizes)
        return all(
            self.tensors[name].dim() == len(shape)
            and all(
                found.setdefault(axis, size) == size for axis, size in zip(shape, self.tensors[name].shape, strict=True)
            )
            for name, shape in shapes.items()
        )

    def fits(self, hidden_size: int, width: int) -> bool:
        """Whether it belongs beside a writer (d, f)."""
        return self._fits(KINDS[self.kind].shapes, d=hidden_size, f=width)

    @property
    def key(self) -> tuple[int, str, None]:
        """(layer, path of the writer in it, no routed expert): where it belongs."""
        return self.layer, self.path, None

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same memory at the same place, however often it was loaded."""
        whole = hashlib.sha256(repr((self.key, self.kind)).encode())
        for name, tensor in sorted(self.tensors.items()):
            whole.update(f"{name} {tuple(tensor.shape)}".encode())
            whole.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return whole.hexdigest()


def looked_up(books: Sequence[Tensors], inputs: Tensor, output: Tensor) -> Tensor:
    """Of codebooks: where the nearest of all keys is within its radius, its value is written ([GRACE] §2.1).

    ``keys`` (n, f), ``values`` (n, d), ``radii`` (n,); distances are Euclidean. Gradients reach the values.
    """
    keys, values, radii = (torch.cat([book[name] for book in books]) for name in ("keys", "values", "radii"))
    with torch.no_grad():
        rows = inputs.reshape(-1, inputs.shape[-1]).to(keys)
        # Not by matrix products: two equal vectors would be some way apart.
        apart, nearest = torch.cdist(rows, keys, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
        within = (apart <= radii[nearest]).view(*inputs.shape[:-1], 1)
    chosen = values[nearest].view(output.shape)
    return torch.where(within.to(output.device), chosen.to(output), output)


def routed(memories: Sequence[Tensors], inputs: Tensor, output: Tensor) -> Tensor:
    """Of side memories W + ``change`` (d, f): where ‖change · x‖ exceeds a memory's ``threshold`` (1,), it is used, of
    several that with the largest ([WISE] §2.3.1)."""
    read = inputs.float()
    largest, added = read.new_zeros(*read.shape[:-1], 1), read.new_zeros(output.shape)
    for memory in memories:
        moved = read @ memory["change"].T
        size = moved.norm(dim=-1, keepdim=True)
        used = size > torch.maximum(memory["threshold"], largest)
        largest, added = torch.where(used, size, largest), torch.where(used, moved, added)
    changed = (output.float() + added.to(output.device)).to(output.dtype)
    return torch.where((largest > 0).to(output.device), changed, output)


KINDS: dict[str, Kind] = {
    "codebook": Kind({"keys": "nf", "values": "nd", "radii": "n"}, looked_up),
    "routed": Kind({"change": "df", "threshold": "n"}, routed),
}


def beside(module: nn.Module, memories: Iterable[SideMemory]) -> Removable:
    """Let memories act on what the linear ``module`` of a writer gives, each kind with all of its own at once.

    So the order in which they were brought does not matter.
    """
    return module.register_forward_hook(_Beside(memories), with_kwargs=True)


class _Beside:
    """The hook: it can be copied and pickled with the module."""

    def __init__(self, memories: Iterable[SideMemory]) -> None:
        self._by_kind: dict[str, list[SideMemory]] = {}
        for memory in sorted(memories, key=lambda memory: memory.fingerprint):
            self._by_kind.setdefault(memory.kind, []).append(memory)
        self._placed: dict[torch.device, list[tuple[Written, list[Tensors]]]] = {}

    def __call__(self, module: nn.Module, args: Args, kwargs: Kwargs, output: Tensor) -> Tensor:
        inputs = first_tensor(args, kwargs)
        if inputs.device not in self._placed:
            self._placed[inputs.device] = self._tensors_at(inputs.device)
        for written, tensors in self._placed[inputs.device]:
            output = written(tensors, inputs, output)
        return output

    def _tensors_at(self, device: torch.device) -> list[tuple[Written, list[Tensors]]]:
        return [
            (KINDS[kind].written, [{name: t.to(device) for name, t in one.tensors.items()} for one in memories])
            for kind, memories in sorted(self._by_kind.items())
        ]
