"""Exact shares of a logit: the direct-path gradients, and the proof that all components add up."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from neuronwise.errors import MethodError, ModelError
from neuronwise.model.closed_form import closed_form
from neuronwise.model.run import Run
from neuronwise.model.stream import WriterGradients, written_gradients
from neuronwise.model.weights import dtype_of

if TYPE_CHECKING:
    from neuronwise.model import Model


class NoShares(MethodError):
    """The logit of an architecture cannot be split into exact shares."""


def direct_shares(model: Model, run: Run, readouts: Sequence[tuple[int, Mapping[int, float]]]) -> WriterGradients:
    """Direct-path gradients of weighted sums of logits, pairs (position, token id → weight), in one pass.

    Raises ``NoShares`` where the components' shares do not add up to the value: an architecture whose stream
    cannot be split this way (altered residual streams) is refused, not mis-scored.
    """
    rows = [(run.row(position), weights) for position, weights in readouts]
    try:
        written = written_gradients(model, run.forced_inputs(), rows, direct=True)
    except ModelError as error:
        raise NoShares(f"{error} Use normalize=False.") from error
    exact = dtype_of(model.module) == torch.float32
    for index, value in enumerate(written.values):
        total = share_total(written, index)
        if abs(total - value) > (1e-4 if exact else 5e-2) * component_scale(written, index):
            raise NoShares(
                f"The residual stream of {model.name} cannot be split into shares of the logit (the components add up "
                f"to {total:.4f}, the logit is {value:.4f}); use normalize=False."
            )
    return written


def direct_gradients(model: Model, run: Run, readouts: Sequence[tuple[int, Mapping[int, float]]]) -> WriterGradients:
    """Values and gradients as of ``direct_shares``: without a pass where the direct path has a closed form.

    That takes a run whose streams were recorded.
    """
    form = closed_form(model)
    streams = [None if form is None else run.activations(position).stream for position, _ in readouts]
    pairs = [(own[0], weights) for own, (_, weights) in zip(streams, readouts, strict=True) if own is not None]
    if form is not None and len(pairs) == len(readouts):
        with contextlib.suppress(ValueError):  # a stream that is not finite
            return form.gradients(model, pairs)
    return direct_shares(model, run, readouts)


def share_total(written: WriterGradients, index: int) -> float:
    """The sum of all components' shares of one readout: writers, attention, embeddings and biases."""
    return written.constants[index] + sum(written.shares[index].values())


def component_scale(written: WriterGradients, index: int) -> float:
    """The sum of the shares' sizes: what rounding errors are measured against."""
    return sum(map(abs, written.shares[index].values())) + abs(written.values[index])
