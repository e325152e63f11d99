"""FiNE's loss ([FiNE] §4.2): the new answer, what the prompt predicted before, the answer not said twice.

It is read from the last hidden states where the head is plain, else from all logits.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from neuronwise.edit.fine.head import PlainHead
from neuronwise.edit.fine.request import Request
from neuronwise.edit.fine.settings import FineSettings

Before = tuple[Tensor, ...]  # what ``Reading.kept`` gave for the unedited model


class Reading(Protocol):
    """What a pass says of one request."""

    def said(self) -> Tensor:
        """(T,): log-probabilities of the target's tokens."""
        ...

    def again(self) -> Tensor:
        """(T,): log-probabilities of the target's tokens behind the target."""
        ...

    def kept(self) -> Before:
        """What ``moved`` compares with, taken of the unedited model."""
        ...

    def moved(self, before: Before) -> Tensor:
        """KL(before ‖ now), the mean over the prompt's rows but the last."""
        ...


def loss(request: Request, reading: Reading, before: Before, settings: FineSettings) -> Tensor:
    """max −log p(target) + α·KL(before ‖ after) on the prompt + β·max −log(1 − p(target again)).

    The fourth term, γ·‖Δ‖₂, has no logits in it: see ``optimize``.
    """
    total = -reading.said().min()
    if settings.alpha and request.prompt_length > 1:
        total = total + settings.alpha * reading.moved(before)
    if settings.beta:
        again = reading.again().exp().clamp(max=1 - 1e-6)
        total = total + settings.beta * (-torch.log1p(-again)).max()
    return total


def read(request: Request, rows: Tensor, head: PlainHead | None) -> Reading:
    """``rows`` (rows, d) before the head where it is plain, else the logits (rows, V)."""
    return FromLogits(request, rows) if head is None else FromHidden(request, rows, head)


class FromHidden:
    """Nothing of the vocabulary's size is kept: one number and two vectors (d,) for each row.

    With A(h) = log Σ exp of the logits, ∇A = E_p[W] and KL(before ‖ now) = A(h) − A(h₀) − ∇A(h₀)·(h − h₀), since the
    logits are linear in h.
    """

    def __init__(self, request: Request, hidden: Tensor, head: PlainHead) -> None:
        self.request, self.hidden, self.head = request, hidden, head
        self.total, self.mean = head.normalizer(hidden)

    def said(self) -> Tensor:
        """See ``Reading``."""
        rows = self.request.answer_rows
        return self.head.logits(self.hidden[rows], self.request.target) - self.total[rows]

    def again(self) -> Tensor:
        """See ``Reading``."""
        last = self.hidden[-1:].expand(len(self.request.target), -1)
        return self.head.logits(last, self.request.target) - self.total[-1]

    def kept(self) -> Before:
        """See ``Reading``."""
        rows = self.request.held_rows
        assert self.mean is not None
        return self.hidden[rows].detach().clone(), self.total[rows].detach(), self.mean[rows].clone()

    def moved(self, before: Before) -> Tensor:
        """See ``Reading``."""
        hidden, total, mean = before
        rows = self.request.held_rows
        along = ((self.hidden[rows] - hidden).to(mean) * mean).sum(1)
        return (self.total[rows] - total - along).mean()


class FromLogits:
    """The plain way, for any model: log-probabilities over the whole vocabulary."""

    def __init__(self, request: Request, logits: Tensor) -> None:
        self.request = request
        self.now = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)

    def said(self) -> Tensor:
        """See ``Reading``."""
        rows = self.now[self.request.answer_rows]
        return rows.gather(1, self.request.target.to(rows.device).unsqueeze(1)).squeeze(1)

    def again(self) -> Tensor:
        """See ``Reading``."""
        return self.now[-1, self.request.target.to(self.now.device)]

    def kept(self) -> Before:
        """See ``Reading``."""
        return (self.now[self.request.held_rows].detach().clone(),)

    def moved(self, before: Before) -> Tensor:
        """See ``Reading``."""
        now = self.now[self.request.held_rows]
        return nn.functional.kl_div(now, before[0], reduction="batchmean", log_target=True)
