"""What a pass says of a request: from the last hidden states where the head is plain, else from all its logits."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuronwise.edit.above import Forward
from neuronwise.edit.fine.batch import Batch
from neuronwise.edit.fine.head import PlainHead, plain_head
from neuronwise.edit.fine.loss import Reading, Wanted
from neuronwise.model.hooks import Hooks, first_tensor


class View:
    """One request's rows in the passes: reads them, and keeps what the unedited model said."""

    def __init__(self, wanted: Wanted, head: PlainHead | None) -> None:
        self.wanted = wanted
        self.head = head
        self.before: tuple[Tensor, ...] | None = None

    def read(self, rows: Tensor) -> FromHidden | FromLogits:
        """``rows`` (rows, d) before the head where it is plain, else the logits (rows, V)."""
        return FromLogits(self, rows) if self.head is None else FromHidden(self, self.head, rows)


class FromHidden:
    """Nothing of the vocabulary's size is kept: one number and two vectors (d,) for each row.

    With A(h) = log Σ exp of the logits, ∇A = E_p[W] and KL(before ‖ now) = A(h) − A(h₀) − ∇A(h₀)·(h − h₀), since the
    logits are linear in h.
    """

    def __init__(self, view: View, head: PlainHead, hidden: Tensor) -> None:
        self.view, self.wanted, self.head, self.hidden = view, view.wanted, head, hidden
        self.total, self.mean = head.normalizer(hidden)

    def said(self) -> Tensor:
        rows = self.wanted.answers
        return self.head.logits(self.hidden[rows], self.wanted.target) - self.total[rows]

    def again(self) -> Tensor:
        last = self.hidden[-1:].expand(len(self.wanted.target), -1)
        return self.head.logits(last, self.wanted.target) - self.total[-1]

    def keep(self) -> None:
        """Remember this as what the unedited model says."""
        rows = self.wanted.kept
        assert self.mean is not None
        self.view.before = self.hidden[rows].detach().clone(), self.total[rows].detach(), self.mean[rows].clone()

    def moved(self) -> Tensor:
        assert self.view.before is not None
        hidden, total, mean = self.view.before
        rows = self.wanted.kept
        along = ((self.hidden[rows] - hidden).to(mean) * mean).sum(1)
        return (self.total[rows] - total - along).mean()


class FromLogits:
    """The plain way, for any model: log-probabilities over the whole vocabulary."""

    def __init__(self, view: View, logits: Tensor) -> None:
        self.view, self.wanted = view, view.wanted
        self.now = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)

    def said(self) -> Tensor:
        rows = self.now[self.wanted.answers]
        return rows.gather(1, self.wanted.target.to(rows.device).unsqueeze(1)).squeeze(1)

    def again(self) -> Tensor:
        return self.now[-1, self.wanted.target.to(self.now.device)]

    def keep(self) -> None:
        self.view.before = (self.now[self.wanted.kept].detach().clone(),)

    def moved(self) -> Tensor:
        assert self.view.before is not None
        return nn.functional.kl_div(
            self.now[self.wanted.kept], self.view.before[0], reduction="batchmean", log_target=True
        )


class Eyes:
    """Passes over a batch that hand out what ``View.read`` reads."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.head = plain_head(batch.model, batch.inputs)

    def rows(self, forward: Forward, numbers: Sequence[int]) -> tuple[Tensor, list[slice]]:
        """(all rows of the requests ``numbers``, d or V) with their graph, and the rows of each."""
        seen: list[Tensor] = []

        def enough(module: nn.Module, args: Any, kwargs: Any) -> None:
            seen.append(first_tensor(args, kwargs))
            raise _Enough

        with Hooks() as hooks:
            slices = self.batch.real_rows(hooks, numbers)
            if self.head is None:
                seen.append(forward(of=numbers))
            else:
                hooks.before(self.batch.model.head, enough)
                with contextlib.suppress(_Enough):
                    forward(of=numbers)
        return seen[0][0], slices


class _Enough(Exception):
    """Ends a pass before the head."""


__all__ = ["Eyes", "FromHidden", "FromLogits", "Reading", "View"]
