"""What the neurons of all layers did at every row of some sequences, while they are read or generated together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neuronwise.errors import MethodError
from neuronwise.index.tally import OPEN, SHUT, UNKNOWN, Fired
from neuronwise.model import Model
from neuronwise.model.activations import Activations, Row
from neuronwise.model.blocks import Block
from neuronwise.model.gate import activation_function
from neuronwise.model.passes import edit, edit_input
from neuronwise.model.products import watching
from neuronwise.model.record import Recorder
from neuronwise.model.writers import Writer


@dataclass
class Watched:
    """Of a batch: (sequences, rows, width) ``inputs`` of each dense writer over all passes, one after another.

    ``gates`` has the codes of the gates (``tally.OPEN`` …) where a block has any. ``routed`` holds, for layers with
    experts, what each row of the one sequence was routed to. ``rows`` is their number, the same in all layers; 0 where
    layers differ.
    """

    inputs: dict[Writer, Tensor] = field(default_factory=dict)
    gates: dict[Writer, Tensor] = field(default_factory=dict)
    routed: dict[int, list[Row]] = field(default_factory=dict)
    rows: int = 0


@dataclass(frozen=True)
class Seen:
    """One sequence of a batch; its rows begin behind ``start`` rows of padding."""

    seen: Watched
    number: int = 0
    start: int = 0

    def fired(self, writer: Writer, rows: Tensor, item: int) -> Fired:
        """What a writer's neurons did at some rows; of an expert's at those that were routed to it.

        Dense ones are on the device where the layer is computed.
        """
        if writer.expert is not None:
            routed = writer.fired_rows(Activations(routed={writer.layer: self.seen.routed[writer.layer]}))
            there = torch.tensor(routed.rows, dtype=torch.long)
            here = torch.isin(there, rows)
            return Fired(item, there[here], routed.values[here])
        own, gates = self.seen.inputs[writer][self.number], self.seen.gates.get(writer)
        rows = rows.to(own.device)
        at = rows + self.start
        return Fired(item, rows, own[at].float(), None if gates is None else gates[self.number][at])


@contextlib.contextmanager
def watched(model: Model, sequences: int = 1) -> Iterator[Watched]:
    """Within the body so many sequences are read together, in one or more passes; complete once the body is left.

    Dense activations stay on the model's devices. With routed experts there is one sequence.
    """
    seen = Watched()
    inputs: dict[Writer, list[Tensor]] = {}
    gates: dict[Writer, list[Tensor]] = {}
    routed = [block for block in model.blocks if block.experts]
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(Recorder(routed, rows=None)) if routed else None
        for block in model.blocks:
            for writer in block.dense:
                count = _Counted(sequences, inputs.setdefault(writer, []), gates.setdefault(writer, []))
                function = _gate_of(block, writer)
                if function is not None:
                    stack.enter_context(edit(function, count.gate, block.module))
                stack.enter_context(edit_input(writer.module, count, block.module))
        yield seen
    for one in recorder.passes if recorder is not None else ():
        for layer, rows in one.routed.items():
            seen.routed.setdefault(layer, []).extend(rows)
    seen.inputs = {writer: torch.cat(passes, dim=1) for writer, passes in inputs.items() if passes}
    seen.gates = {writer: torch.cat(passes, dim=1) for writer, passes in gates.items() if passes}
    counts = {one.shape[1] for one in seen.inputs.values()} | {len(rows) for rows in seen.routed.values()}
    seen.rows = counts.pop() if len(counts) == 1 and len(seen.inputs) == len(inputs) else 0


def _gate_of(block: Block, writer: Writer) -> nn.Module | None:
    try:
        return activation_function(block.around(writer.path))
    except MethodError:
        return None


@dataclass
class _Counted:
    """Keeps what goes into a writer, and of the gate that went before it the sign."""

    sequences: int
    inputs: list[Tensor]
    gates: list[Tensor]
    _gate: Tensor | None = None

    def gate(self, output: Tensor) -> Tensor:
        if not watching():
            self._gate = output.detach()
        return output

    def __call__(self, inputs: Tensor) -> Tensor:
        if watching():
            return inputs
        rows, gate, self._gate = inputs.detach(), self._gate, None
        self.inputs.append(rows.reshape(self.sequences, -1, rows.shape[-1]).clone())
        # Where nothing multiplies the function's output, there is no gate.
        if gate is not None and gate.shape == rows.shape:
            codes = UNKNOWN if torch.equal(gate, rows) else torch.where(gate > 0, OPEN, SHUT)
            filled = torch.zeros_like(rows, dtype=torch.uint8) + codes
            self.gates.append(filled.to(torch.uint8).reshape(self.inputs[-1].shape))
        return inputs
