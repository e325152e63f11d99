"""Scores: one number per neuron for one target, kept writer by writer, and the choice of the top K over all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from neuronwise.errors import MethodError, NonFiniteError
from neuronwise.files.kinds import a
from neuronwise.images import ImageLike
from neuronwise.model.run import Run, Target
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron, NeuronSet, ScoredNeuron
from neuronwise.neurons.columns import Columns

MANY = 10_000  # neurons of a set that is kept as columns
Pair = tuple[Run, Target, ImageLike]  # a run, the word scored in it, and its photo without the object


class Scores(dict[Writer, Tensor]):
    """Scores of every neuron for one target: (width,) float32 for each writer.

    ``activations`` holds what was scored, in the same form, where the method has it, and ``baselines`` what that was
    measured against; ``adds``, what each neuron adds where the score weighs that. Experts that the token was not
    routed to have no entry without a baseline: they wrote nothing. ``usual`` is the part of an exactly shared logit
    that is no neuron's surplus over its baseline: with it the scores add up to the logit.
    """

    def __init__(
        self, values: Mapping[Writer, Tensor] | None = None, activations: Mapping[Writer, Tensor] | None = None
    ) -> None:
        super().__init__({writer: _fitting("scores", writer, of) for writer, of in (values or {}).items()})
        self.activations: dict[Writer, Tensor] = {
            writer: _fitting("activations", writer, of) for writer, of in (activations or {}).items()
        }
        self.baselines: dict[Writer, Tensor] = {}
        self.adds: dict[Writer, Tensor] = {}
        self.usual: float | None = None

    def put(self, writer: Writer, values: Tensor, activations: Tensor, baselines: Tensor | None = None) -> None:
        """Set a writer's scores, activations and baselines, all (width,)."""
        self[writer] = values
        self.activations[writer] = _fitting("activations", writer, activations)
        if baselines is not None:
            self.baselines[writer] = _fitting("baselines", writer, baselines)

    def __setitem__(self, writer: Writer, values: Tensor) -> None:
        """Set a writer's scores, (width,)."""
        super().__setitem__(writer, _fitting("scores", writer, values))

    def of(self, neuron: Neuron) -> float:
        """One neuron's score, 0 where it has none."""
        return _value(self, neuron) or 0.0

    def activation(self, neuron: Neuron) -> float | None:
        """The activation that was scored; None where the method does not keep it."""
        return _value(self.activations, neuron)

    def baseline(self, neuron: Neuron) -> float | None:
        """What the activation was measured against; None where that is 0."""
        return _value(self.baselines, neuron)

    def layer(self, layer: int, expert: int | None = None) -> Tensor:
        """(f,) scores of a layer's dense neurons, or of one of its experts, by unit; empty where there are none."""
        own = [writer for writer in _ordered(self) if (writer.layer, writer.expert) == (layer, expert)]
        return torch.cat([self[writer] for writer in own]) if own else torch.zeros(0)

    def top(self, count: int | None, record: Mapping[str, object] | None = None) -> NeuronSet:
        """The ``count`` neurons (all for None) of highest score over all layers; ties broken by (layer, expert, unit).

        Raises ``NonFiniteError`` when any score is NaN or infinite, and ``MethodError`` for a count below 1.
        """
        if count is not None and count < 1:
            raise MethodError(f"top is {count}; ask for 1 neuron or more.")
        writers = _ordered(self)
        flat = torch.cat([self[writer] for writer in writers])
        if not torch.isfinite(flat).all():
            raise NonFiniteError(
                f"{int((~torch.isfinite(flat)).sum())} of {len(flat)} scores are not finite. "
                "In half precision, load the model with dtype=torch.float32 and try again."
            )
        # A stable sort keeps the order of (layer, expert, unit) among equals.
        best = torch.sort(flat, descending=True, stable=True).indices[:count]
        usual = {} if self.usual is None else {"usual": self.usual}
        return NeuronSet(self._members(writers, flat, best), {**(record or {}), **usual})

    def _members(self, writers: Sequence[Writer], flat: Tensor, best: Tensor) -> Sequence[ScoredNeuron]:
        """The neurons numbered ``best`` of all writers' one after another; of very many as columns."""
        starts = torch.tensor([0] + [len(self[writer]) for writer in writers]).cumsum(0)
        at = torch.searchsorted(starts, best, right=True) - 1
        own = best - starts[at]
        columns = {"score": flat[best]}
        tables = {"activation": self.activations, "baseline": self.baselines, "adds": self.adds}
        for name, table in tables.items():
            if table:
                none = (torch.full((len(self[writer]),), torch.nan) for writer in writers)
                columns[name] = torch.cat([table.get(w, empty) for w, empty in zip(writers, none, strict=True)])[best]
        addresses = {
            "layer": torch.tensor([writer.layer for writer in writers])[at],
            "unit": torch.tensor([writer.first for writer in writers])[at] + own,
            "expert": torch.tensor([-1 if writer.expert is None else writer.expert for writer in writers])[at],
        }
        found = Columns({**addresses, **columns})
        return found if len(found) > MANY else tuple(found)


def _fitting(what: str, writer: Writer, values: object) -> Tensor:
    """(width,) float32 on the CPU, detached; raises ``MethodError`` for anything but one real number a neuron."""
    if not isinstance(values, Tensor):
        given = "None" if values is None else a(type(values).__name__)
        raise MethodError(f"{what} of {writer} are {given}; put a tensor ({writer.width},) float32.")
    if values.shape != (writer.width,) or not values.is_floating_point():
        shape = f"({', '.join(map(str, values.shape))}{',' * (values.dim() == 1)})"
        dtype = str(values.dtype).removeprefix("torch.")
        raise MethodError(f"{what} of {writer} are {shape} {dtype}; put ({writer.width},) float32.")
    return values.detach().to("cpu", torch.float32)


def _ordered(table: Mapping[Writer, Tensor]) -> list[Writer]:
    return sorted(table, key=lambda writer: writer.neuron(0))


def _value(table: Mapping[Writer, Tensor], neuron: Neuron) -> float | None:
    writer = next((writer for writer in table if neuron in writer), None)
    return None if writer is None else _at(table, writer, neuron.unit - writer.first)


def _at(table: Mapping[Writer, Tensor], writer: Writer, column: int) -> float | None:
    return float(table[writer][column]) if writer in table else None
