"""What the neurons of all layers did at every row of a sequence, while it is read or generated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neuronwise.errors import MethodError
from neuronwise.index.tally import OPEN, SHUT, UNKNOWN
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
    """Of one sequence: ``inputs`` and ``gates`` by dense writer, a tensor (rows, width) for each pass.

    ``gates`` has the code of each gate (``tally.OPEN`` …). ``routed`` holds, for layers with experts, what each row was
    routed to.
    """

    inputs: dict[Writer, list[Tensor]] = field(default_factory=dict)
    gates: dict[Writer, list[Tensor]] = field(default_factory=dict)
    routed: dict[int, list[Row]] = field(default_factory=dict)

    def dense(self, writer: Writer, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(n, width) float32 activations of a dense writer at some rows, the rows, and the codes of their gates if any.

        All are on the device where the layer is computed.
        """
        inputs, gates = self.inputs[writer], self.gates.get(writer)
        rows = rows.to(inputs[0].device)
        return torch.cat(inputs)[rows].float(), rows, None if gates is None else torch.cat(gates)[rows]

    def rows(self, model: Model) -> int:
        """The number of rows that every layer has seen; -1 where they differ."""
        seen = {sum(map(len, passes)) for passes in self.inputs.values()} | {len(rows) for rows in self.routed.values()}
        return seen.pop() if len(seen) == 1 else -1

    def experts(self, writer: Writer) -> tuple[list[int], Tensor]:
        """The rows that were routed to an expert, and router weight · a there (n, width)."""
        fired = writer.fired_rows(Activations(routed={writer.layer: self.routed[writer.layer]}))
        return fired.rows, fired.values


@contextlib.contextmanager
def watched(model: Model) -> Iterator[Watched]:
    """Within the body, one sequence is read in one or more passes; complete once the body is left.

    Dense activations stay on the model's devices.
    """
    seen = Watched()
    routed = [block for block in model.blocks if block.experts]
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(Recorder(routed, rows=None)) if routed else None
        for block in model.blocks:
            for writer in block.dense:
                pending: list[Tensor] = []
                function = _gate_of(block, writer)
                if function is not None:
                    stack.enter_context(edit(function, _kept(pending), block.module))
                stack.enter_context(edit_input(writer.module, _counted(seen, writer, pending), block.module))
        yield seen
    for one in recorder.passes if recorder is not None else ():
        for layer, rows in one.routed.items():
            seen.routed.setdefault(layer, []).extend(rows)


def _gate_of(block: Block, writer: Writer) -> nn.Module | None:
    try:
        return activation_function(block.around(writer.path))
    except MethodError:
        return None


def _kept(pending: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def keep(output: Tensor) -> Tensor:
        if not watching():
            pending[:] = [output.detach()]
        return output

    return keep


def _counted(seen: Watched, writer: Writer, pending: list[Tensor]) -> Callable[[Tensor], Tensor]:
    def count(inputs: Tensor) -> Tensor:
        if watching():
            return inputs
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        seen.inputs.setdefault(writer, []).append(rows.clone())
        gate = pending.pop() if pending else None
        if gate is not None and gate.shape == inputs.shape:
            gate = gate.reshape(rows.shape)
            plain = torch.equal(gate, rows)  # nothing is multiplied: there is no gate
            codes = torch.full_like(rows, UNKNOWN, dtype=torch.uint8) if plain else torch.where(gate > 0, OPEN, SHUT)
            seen.gates.setdefault(writer, []).append(codes.to(torch.uint8))
        return inputs

    return count
