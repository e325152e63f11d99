"""Scored neurons as columns, for sets of very many: each neuron is made when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from neuronwise.errors import NeuronError, NonFiniteError
from neuronwise.neurons.neuron import Neuron, ScoredNeuron

if TYPE_CHECKING:
    import numpy as np

WHOLE = ("layer", "unit", "expert", "position")  # whole numbers from 0; −1: none
NUMBERS = ("score", "activation", "baseline", "adds")  # NaN: none
NEEDED = ("layer", "unit", "score")


class Columns(Sequence[ScoredNeuron]):
    """Scored neurons from columns of one length, named as the fields of ``ScoredNeuron`` and ``Neuron``.

    ``layer``, ``unit`` and ``score`` are needed. In ``expert`` and ``position`` −1 stands for none, in ``activation``,
    ``baseline`` and ``adds`` NaN does; a column that is left out has none anywhere. Raises ``NeuronError`` for columns
    that do not fit together or do not count, and for a neuron that is repeated; ``NonFiniteError`` for scores that are
    not finite.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        import numpy as np

        missing = [name for name in NEEDED if name not in columns]
        strange = [name for name in columns if name not in (*WHOLE, *NUMBERS)]
        if missing or strange:
            known = ", ".join((*WHOLE, *NUMBERS))
            what = "is missing" if missing else "is not one of them"
            raise NeuronError(f"The columns of neurons are {known}; {(missing + strange)[0]!r} {what}.")
        try:
            self.arrays = {
                name: np.asarray(column, np.int64 if name in WHOLE else np.float64) for name, column in columns.items()
            }
        except (TypeError, ValueError, OverflowError) as error:
            raise NeuronError(f"A column of neurons holds something that is not a number: {error}.") from error
        if any(column.shape != self.arrays["layer"].shape or column.ndim != 1 for column in self.arrays.values()):
            raise NeuronError("Columns of neurons have one length.")
        least = {"layer": 0, "unit": 0, "expert": -1, "position": -1}
        if any((self.arrays[name] < least[name]).any() for name in WHOLE if name in self.arrays):
            raise NeuronError("Layers, units, experts and positions count from 0.")
        wrong = ~np.isfinite(self.arrays["score"])
        if wrong.any():
            raise NonFiniteError(f"{int(wrong.sum())} of {len(self)} scores are not finite; scores must be finite.")
        places = np.stack([self.arrays[name] for name in WHOLE if name in self.arrays])
        order = np.lexsort(places)
        if (np.diff(places[:, order], axis=1) == 0).all(axis=0).any():
            raise NeuronError("A set of neurons holds each neuron once; this one repeats some.")

    def __len__(self) -> int:
        return len(self.arrays["layer"])

    def __iter__(self) -> Iterator[ScoredNeuron]:
        absent = [None] * len(self)
        lists = [self._listed(name) if name in self.arrays else absent for name in (*WHOLE, *NUMBERS)]
        for layer, unit, expert, position, score, activation, baseline, adds in zip(*lists, strict=True):
            yield ScoredNeuron(Neuron(layer, unit, expert), score, activation, position, baseline, adds)

    def _listed(self, name: str) -> list[Any]:
        values = self.arrays[name].tolist()
        if name in NEEDED:
            return values
        return [None if value == -1 else value for value in values] if name in WHOLE else [
            None if value != value else value for value in values
        ]  # fmt: skip

    @overload
    def __getitem__(self, index: int) -> ScoredNeuron: ...
    @overload
    def __getitem__(self, index: slice) -> Columns: ...
    def __getitem__(self, index: int | slice) -> ScoredNeuron | Columns:
        if isinstance(index, slice):
            return Columns({name: column[index] for name, column in self.arrays.items()})
        at = range(len(self))[index]
        return next(iter(self[at : at + 1]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Columns, tuple)) and len(self) == len(other) and all(
            one == another for one, another in zip(self, other, strict=True)
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]

    def to_lists(self) -> dict[str, list[Any]]:
        """The columns as plain JSON values, None where there is none."""
        return {name: self._listed(name) for name in self.arrays}

    @classmethod
    def from_lists(cls, lists: Mapping[str, Sequence[Any]]) -> Columns:
        """Read what ``to_lists`` gave; raises as the class does."""
        import numpy as np

        columns: dict[str, np.ndarray[Any, Any] | Sequence[Any]] = {}
        for name, values in lists.items():
            absent = -1 if name in WHOLE else np.nan
            columns[name] = values if name in NEEDED else [absent if value is None else value for value in values]
        return cls(columns)
