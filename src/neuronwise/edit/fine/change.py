"""What a request learns: a Δ of its own neurons, added where their writers write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neuronwise.edit.delta import Delta
from neuronwise.edit.fine.request import Request
from neuronwise.edit.trial import changed
from neuronwise.model.model import Model
from neuronwise.model.writers import Writer
from neuronwise.neurons import Neuron


class Change:
    """Δ of one request, (neurons, d) float32 in ``values``, writer by writer, and how far it has come.

    ``steps`` counts passes, ``reached`` holds the probability of each target token in the last of them, ``start`` the
    lengths that the search for a start chose.
    """

    def __init__(self, model: Model, request: Request, neurons: Sequence[Neuron]) -> None:
        self.request = request
        self.columns: dict[Writer, Tensor] = {}
        self.rows: dict[Writer, slice] = {}
        start = 0
        for writer, members in model.by_writer(neurons).items():
            self.columns[writer] = writer.columns(members)
            self.rows[writer] = slice(start, start + len(members))
            start += len(members)
        self.values = torch.zeros(start, model.hidden_size, device=model.device, requires_grad=True)
        self.steps = 0
        self.reached: list[float] = []
        self.start: list[float] = []

    @property
    def routed(self) -> bool:
        """Whether it changes experts: these see tokens of all sequences at once, so it passes alone."""
        return any(writer.expert is not None for writer in self.columns)

    @property
    def deltas(self) -> tuple[Delta, ...]:
        """What has been learned, writer by writer."""
        values, found = self.values.detach().cpu(), []
        for writer, columns in self.columns.items():
            units, places = columns.cpu().unique(return_inverse=True)  # changes of one neuron add up
            left = torch.zeros(len(units), values.shape[1]).index_add(0, places, values[self.rows[writer]])
            found.append(Delta(writer.layer, writer.path, left.T.contiguous(), units, expert=writer.expert))
        return tuple(found)

    def added(self, writer: Writer, inputs: Tensor, values: Tensor) -> Tensor:
        """(rows, d) float32: what ``values`` add to what a writer writes for ``inputs`` (rows, f)."""
        fired = inputs[:, self.columns[writer].to(inputs.device)].float()
        return fired @ values[self.rows[writer]].to(fired.device)


class Shown:
    """The changes that are in the passes to come: ``of[i]`` is the change of sequence i, ``values[i]`` its Δ."""

    def __init__(self) -> None:
        self.of: Sequence[Change] = ()
        self.values: Sequence[Tensor] = ()

    @contextlib.contextmanager
    def among(self, changes: Sequence[Change]) -> Iterator[None]:
        """Within the body they act; ``changes`` are all that may be shown."""
        with changed([writer for change in changes for writer in change.columns], self._add):
            yield

    def _add(self, writer: Writer, inputs: Tensor, output: Tensor) -> Tensor | None:
        members = [number for number, change in enumerate(self.of) if writer in change.columns]
        if not members:
            return None
        if writer.expert is not None:
            assert len(self.of) == 1, "tokens of several sequences cannot be separated within an expert"
        inputs = inputs.reshape(len(self.of), -1, inputs.shape[-1])  # some blocks run the batch's rows in one
        written = output.reshape(len(self.of), -1, output.shape[-1])
        added = [self.of[number].added(writer, inputs[number], self.values[number]) for number in members]
        at = torch.tensor(members, device=output.device)
        return written.index_add(0, at, torch.stack(added).to(output.dtype)).reshape(output.shape)
