"""FiNE's loss ([FiNE] §4.2): the new answer, what the prompt predicted before, the answer not said twice.

It is read from the last hidden states where the head is plain, else from all logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from neuronwise.edit.fine.head import PlainHead
from neuronwise.edit.fine.request import Request
from neuronwise.edit.fine.settings import FineSettings


@dataclass
class Hidden:
    """Last hidden states (rows, d), with the log-sum-exp of their logits and its gradient where they are asked for."""

    rows: Tensor
    head: PlainHead

    @cached_property
    def sums(self) -> tuple[Tensor, Tensor]:
        """(rows,) and (rows, d)."""
        with torch.enable_grad():
            total, mean = self.head.normalizer(self.rows.requires_grad_())
        assert mean is not None
        return total.detach(), mean


Before = Hidden | Tensor  # what ``Reading.kept`` gave for the unedited model


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


def loss(
    request: Request, reading: Reading, before: Before | None, settings: FineSettings, together: bool = False
) -> Tensor:
    """max −log p(target) + α·KL(before ‖ after) on the prompt + β·max −log(1 − p(target again)).

    ``before`` is None for the unedited model, whose KL is 0 and at its least. ``together``: the mean over all target
    tokens that are not likely enough, in place of the least likely one. The fourth term, γ·‖Δ‖₂, has no logits
    in it: see ``optimize``.
    """
    said = reading.said()
    short = said < math.log(min(settings.enough, 1.0))
    total = -said[short].mean() if together and bool(short.any()) else -said.min()
    if settings.alpha and request.prompt_length > 1 and before is not None:
        total = total + settings.alpha * reading.moved(before)
    if settings.beta:
        again = reading.again().exp().clamp(max=1 - 1e-6)
        total = total + settings.beta * (-torch.log1p(-again)).max()
    return total


def read(request: Request, rows: Tensor, head: PlainHead | None, sparing: bool = False) -> Reading:
    """``rows`` (rows, d) before the head where it is plain, else the logits (rows, V).

    ``sparing``: only the rows that a term needs pass the head, when it is asked for.
    """
    return FromLogits(request, rows) if head is None else FromHidden(request, rows, head, sparing)


class FromHidden:
    """Nothing of the vocabulary's size is kept: one number and two vectors (d,) for each row.

    With A(h) = log Σ exp of the logits, ∇A = E_p[W] and KL(before ‖ now) = A(h) − A(h₀) − ∇A(h₀)·(h − h₀), since the
    logits are linear in h.
    """

    def __init__(self, request: Request, hidden: Tensor, head: PlainHead, sparing: bool = False) -> None:
        self.request, self.hidden, self.head = request, hidden, head
        self.whole = None if sparing else head.normalizer(hidden)

    def said(self) -> Tensor:
        """See ``Reading``."""
        rows = self.request.answer_rows
        return self.head.logits(self.hidden[rows], self.request.target) - self._total(rows)

    def again(self) -> Tensor:
        """See ``Reading``."""
        last = self.hidden[-1:].expand(len(self.request.target), -1)
        return self.head.logits(last, self.request.target) - self._total(slice(-1, None))

    def kept(self) -> Hidden:
        """See ``Reading``."""
        rows = self.request.held_rows
        found = Hidden(self.hidden[rows].detach().clone(), self.head)
        if self.whole is not None and self.whole[1] is not None:
            found.sums = self.whole[0][rows].detach(), self.whole[1][rows].clone()
        return found

    def moved(self, before: Before) -> Tensor:
        """See ``Reading``."""
        assert isinstance(before, Hidden)
        rows, (total, mean) = self.request.held_rows, before.sums
        along = ((self.hidden[rows] - before.rows.detach()).to(mean) * mean).sum(1)
        return (self._total(rows) - total - along).mean()

    def _total(self, rows: slice) -> Tensor:
        return self.head.normalizer(self.hidden[rows])[0] if self.whole is None else self.whole[0][rows]


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

    def kept(self) -> Tensor:
        """See ``Reading``."""
        return self.now[self.request.held_rows].detach().clone()

    def moved(self, before: Before) -> Tensor:
        """See ``Reading``."""
        assert isinstance(before, Tensor)
        now = self.now[self.request.held_rows]
        return nn.functional.kl_div(now, before, reduction="batchmean", log_target=True)
