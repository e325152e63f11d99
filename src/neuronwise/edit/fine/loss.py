"""FiNE's loss ([FiNE] §4.2): the new answer, what the prompt said before, the answer not said twice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuronwise.edit.fine.settings import FineSettings
from neuronwise.model.run import Run


@dataclass
class Wanted:
    """What one request asks for: ``target`` (T,) tokens behind a prompt of ``length`` rows.

    ``before`` (length − 1, V): log-probabilities of the unedited model on the prompt, known after the first step.
    """

    target: Tensor
    length: int
    before: Tensor | None = None

    @classmethod
    def of(cls, request: Run) -> Wanted:
        count = len(request.output_ids)
        return cls(torch.tensor(request.output_ids), request.length - count)

    def said(self, now: Tensor) -> Tensor:
        """(T,): log-probabilities of the target's tokens, from those of all rows, ``now`` (rows, V)."""
        rows = now[self.length - 1 : self.length - 1 + len(self.target)]
        return rows.gather(1, self.target.to(now.device).unsqueeze(1)).squeeze(1)


def loss(wanted: Wanted, now: Tensor, settings: FineSettings) -> Tensor:
    """max −log p(target) + α·KL(before ‖ after) on the prompt + β·max −log(1 − p(target again)).

    ``now`` (rows, V): log-probabilities of the edited model. The fourth term, γ·‖Δ‖₂, knows no logits: see
    ``optimize``.
    """
    total = -wanted.said(now).min()
    if settings.alpha and wanted.length > 1:
        assert wanted.before is not None
        kept = nn.functional.kl_div(now[: wanted.length - 1], wanted.before, reduction="batchmean", log_target=True)
        total = total + settings.alpha * kept
    if settings.beta:
        again = now[-1, wanted.target.to(now.device)].exp().clamp(max=1 - 1e-6)
        total = total + settings.beta * (-torch.log1p(-again)).max()
    return total
