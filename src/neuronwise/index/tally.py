"""What is counted of a layer's neurons while an index is gathered: exact, and the same in whatever order it merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuronwise.errors import IndexingError, NonFiniteError
from neuronwise.index.bins import BINS, SIDE, bins_of

PLACES = ("predicting", "image", "text")
SUMS, TOPS = ("sums", "squares"), ("value", "item", "position", "gate")
MOST = 2**31 - 1  # positions that a count holds
UNKNOWN, OPEN, SHUT = 0, 1, 2  # the gate at an example: none that is known, positive, not positive


@dataclass(frozen=True)
class Fired:
    """What a writer's neurons did in item number ``item``: at the rows ``rows`` (n,) ``values`` (n, width) float32.

    ``gates`` (n, width) uint8 has the code of each gate, None without.
    """

    item: int
    rows: Tensor
    values: Tensor
    gates: Tensor | None = None

    def extreme(self, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """(width,) the largest a (``end`` 0) or -a (1), the row where it is first, and the code of its gate."""
        found = self.values.max(0) if end == 0 else self.values.min(0)
        value, at = (found.values if end == 0 else -found.values), found.indices
        gate = torch.zeros_like(at, dtype=torch.uint8) if self.gates is None else self.gates.gather(0, at[None])[0]
        return value, self.rows[at].int(), gate


class Tally:
    """The neurons of one layer, ``widths`` of each of its writers, at each of ``PLACES``.

    ``counts`` (writers, places): positions counted. ``sums`` and ``squares`` (2, places, neurons) float64: Σa and Σa²
    with the rounding error that they carry, so that the order of adding does not matter. ``histogram`` (places,
    neurons, 64). ``value``, ``item``, ``position``, ``gate`` (2, places, neurons, k): the k items with the largest a
    and those with the largest −a, each once, by its extreme position; an item of −1 is none.
    """

    def __init__(self, widths: Sequence[int], k: int) -> None:
        self.starts = [sum(widths[:index]) for index in range(len(widths) + 1)]
        self.k = k
        places, neurons = len(PLACES), self.starts[-1]
        self.counts = torch.zeros(len(widths), places, dtype=torch.int64)
        self.sums = torch.zeros(2, places, neurons, dtype=torch.float64)
        self.squares = torch.zeros_like(self.sums)
        self.histogram = torch.zeros(places, neurons, BINS, dtype=torch.int32)
        shape = (2, places, neurons, k)
        self.value = torch.full(shape, -torch.inf)
        self.item = torch.full(shape, -1, dtype=torch.int32)
        self.position = torch.zeros(shape, dtype=torch.int32)
        self.gate = torch.zeros(shape, dtype=torch.uint8)

    def add(self, writer: int, place: int, seen: Sequence[Fired]) -> None:
        """Count what the neurons of writer number ``writer`` did at a place in some items, which come in their order.

        The tally goes to the device of the values, where that has float64.
        """
        seen = [one for one in seen if len(one.rows)]
        if not seen:
            return
        self._meet(seen[0].values.device)
        values = torch.cat([one.values for one in seen]).to(self.sums.device)
        own = slice(self.starts[writer], self.starts[writer + 1])
        self.counts[writer, place] += len(values)
        self._require_room()
        exact = values.double()
        _add(self.sums[:, place, own], exact.sum(0))
        _add(self.squares[:, place, own], exact.square_().sum(0))
        width = values.shape[1]
        flat = bins_of(values) + BINS * torch.arange(width, dtype=torch.int32, device=values.device)
        self.histogram[place, own] += torch.bincount(flat.flatten(), minlength=width * BINS).view(width, BINS)
        for end in range(2):
            self._insert(end, place, own, [one.extreme(end) for one in seen], [one.item for one in seen])

    def _insert(
        self, end: int, place: int, own: slice, extremes: Sequence[tuple[Tensor, ...]], items: Sequence[int]
    ) -> None:
        """Put the extremes of some items where they belong in the sorted lists; of equal ones the earlier is first."""
        device = self.sums.device
        value, position, gate = (torch.stack(parts, 1).to(device) for parts in zip(*extremes, strict=True))
        lists = [getattr(self, name)[end, place, own] for name in TOPS]
        better = torch.nonzero((value > lists[0][:, -1:]).any(1)).flatten()
        item = torch.tensor(items, dtype=torch.int32, device=device).expand_as(position)
        new = [one[better] for one in (value, item, position, gate)]
        both = [torch.cat([kept[better], added], dim=1) for kept, added in zip(lists, new, strict=True)]
        best = both[0].argsort(dim=1, descending=True, stable=True)[:, : self.k]
        for kept, values in zip(lists, both, strict=True):
            kept[better] = values.gather(1, best)

    def _meet(self, device: torch.device) -> None:
        if self.sums.device.type == "cpu" and device.type != "mps":
            for name in (*SUMS, "histogram", *TOPS):
                setattr(self, name, getattr(self, name).to(device))

    def _require_room(self) -> None:
        if bool((self.counts > MOST).any()):
            raise IndexingError(f"An index holds at most {MOST} positions of a kind; index fewer photos or texts.")

    def merge(self, other: Tally) -> None:
        """Add what another tally of the same layer has counted over other items."""
        self.counts += other.counts
        self._require_room()
        for name in SUMS:
            total, added = getattr(self, name), getattr(other, name)
            _add(total, added[0])
            _add(total, added[1])
        self.histogram += other.histogram
        both = {name: torch.cat([getattr(self, name), getattr(other, name)], dim=-1) for name in TOPS}
        by_item = both["item"].argsort(dim=-1, stable=True)
        by_value = both["value"].gather(-1, by_item).argsort(dim=-1, descending=True, stable=True)
        best = by_item.gather(-1, by_value)[..., : self.k]
        for name, values in both.items():
            setattr(self, name, values.gather(-1, best))

    def require_finite(self) -> None:
        """Raise ``NonFiniteError`` where an activation was not finite."""
        if not bool(torch.isfinite(self.squares).all()):
            raise NonFiniteError("The activations are not finite; load the model with dtype=torch.float32.")

    def tensors(self) -> dict[str, Tensor]:
        """What ``restore`` reads."""
        names = ("counts", *SUMS, "histogram", *TOPS)
        return {name: getattr(self, name).cpu().contiguous() for name in names}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what ``tensors`` gave; raises ``ValueError`` for those of another layer."""
        for name, mine in self.tensors().items():
            kept = tensors[name]
            if kept.shape != mine.shape or kept.dtype != mine.dtype:
                raise ValueError(f"{name} is {tuple(kept.shape)}, not {tuple(mine.shape)}")
            setattr(self, name, kept.to(getattr(self, name).device))

    def spread_counts(self) -> Tensor:
        """(places, neurons): positions counted of each neuron."""
        return self.counts.repeat_interleave(torch.tensor(self.starts).diff(), dim=0).T

    def moments(self) -> tuple[Tensor, Tensor]:
        """(places, neurons) float64: mean and standard deviation; 0 where nothing was counted."""
        counts = self.spread_counts().clamp_min(1).double()
        (total, rest), (squares, squares_rest) = (_settled(getattr(self, name).cpu()) for name in SUMS)
        mean = total / counts
        spread = (squares - mean * total) + (squares_rest - mean * rest)  # Σ(a − m)² = Σa² − m Σa, leading parts first
        return mean, (spread / counts).clamp_min(0).sqrt()

    def above(self, step: int) -> Tensor:
        """(places, neurons): activations whose size is at or above the ``step``-th of ``bins.SIZES``."""
        return (self.histogram[..., : SIDE - 1 - step].sum(-1) + self.histogram[..., SIDE + 1 + step :].sum(-1)).cpu()


def _add(total: Tensor, added: Tensor) -> None:
    """total[0] + total[1] += added, with what rounding loses of the sum kept in total[1] (Knuth's TwoSum)."""
    new = total[0] + added
    part = new - total[0]
    total[1] += (total[0] - (new - part)) + (added - part)
    total[0] = new


def _settled(pair: Tensor) -> tuple[Tensor, Tensor]:
    """The same sum with all that one float64 holds of it in the first."""
    total = pair[0] + pair[1]
    return total, (pair[0] - total) + pair[1]
