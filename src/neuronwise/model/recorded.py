"""Activations of many runs, recorded in batches."""

from __future__ import annotations

from collections.abc import Sequence

from neuronwise.model.activations import Activations
from neuronwise.model.batches import batch, together
from neuronwise.model.halving import BatchSize, in_batches
from neuronwise.model.run import Run
from neuronwise.model.state import state_of


def record_together(wanted: Sequence[tuple[Run, Sequence[int]]], kind: str = "ffn", size: BatchSize = "auto") -> None:
    """Record runs of one model at positions, many runs in a pass, so that ``Run.activations`` needs none of its own.

    What is recorded already is left out. Raises as ``Run.activations`` does.
    """
    missing = [(run, positions) for run, every in wanted if (positions := run.missing(every, kind))]
    if not missing:
        return
    model = missing[0][0].model
    now = state_of(model)
    for run, _ in missing:
        run.require_state(now)
    inputs = [run.forced_inputs() for run, _ in missing]

    def work(members: list[int]) -> list[Activations]:
        whole = batch(model, [inputs[index] for index in members])
        rows = [[missing[index][0].row(position) for position in missing[index][1]] for index in members]
        return model.record(whole.inputs, rows=rows, kind=kind).split([len(own) for own in rows])

    lengths = [run.length for run, _ in missing]
    groups = together(model, inputs, "passes")
    for index, seen in in_batches(model, groups, lengths, work, size):
        if isinstance(seen, Exception):
            raise seen
        missing[index][0].keep(missing[index][1], seen, kind)
