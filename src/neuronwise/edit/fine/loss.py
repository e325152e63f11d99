"""FiNE's loss ([FiNE] §4.2): the new answer, what the prompt said before, the answer not said twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from neuronwise.edit.fine.settings import FineSettings
from neuronwise.model.run import Run


@dataclass
class Wanted:
    """What one request asks for: ``target`` (T,) tokens behind a prompt of ``length`` rows."""

    target: Tensor
    length: int

    @classmethod
    def of(cls, request: Run) -> Wanted:
        count = len(request.output_ids)
        return cls(torch.tensor(request.output_ids), request.length - count)

    @property
    def answers(self) -> slice:
        """The rows that predict the target's tokens."""
        return slice(self.length - 1, self.length - 1 + len(self.target))

    @property
    def kept(self) -> slice:
        """The rows of the prompt that shall go on as before: all but its last."""
        return slice(0, self.length - 1)


class Reading(Protocol):
    """What a pass says of one request, see ``readings``."""

    def said(self) -> Tensor:
        """(T,): log-probabilities of the target's tokens."""
        ...

    def again(self) -> Tensor:
        """(T,): log-probabilities of the target's tokens behind the target."""
        ...

    def moved(self) -> Tensor:
        """KL(before ‖ now), the mean over the prompt's rows but the last."""
        ...


def loss(wanted: Wanted, reading: Reading, settings: FineSettings) -> Tensor:
    """max −log p(target) + α·KL(before ‖ after) on the prompt + β·max −log(1 − p(target again)).

    The fourth term, γ·‖Δ‖₂, knows no logits: see ``optimize``.
    """
    total = -reading.said().min()
    if settings.alpha and wanted.length > 1:
        total = total + settings.alpha * reading.moved()
    if settings.beta:
        again = reading.again().exp().clamp(max=1 - 1e-6)
        total = total + settings.beta * (-torch.log1p(-again)).max()
    return total
