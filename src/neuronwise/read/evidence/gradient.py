"""Evidence by gradient: input × gradient at the photo's tokens."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run, Target
from neuronwise.read.evidence.arriving import arriving
from neuronwise.read.evidence.method import EvidenceMethod


def gradient(run: Run, targets: Sequence[Target], tokens: PhotoTokens) -> Tensor:
    """h · ∂ log p(t) / ∂h at each image token h, as the decoder reads it (nats): one forward and one backward pass."""

    def log_p(raw: Tensor, logits: Tensor) -> list[Tensor]:
        return [row[target.token_id] for row, target in zip(logits.float().log_softmax(-1), targets, strict=True)]

    return arriving(run, [run.row(target.position) for target in targets], tokens, log_p)


METHOD = EvidenceMethod(
    "gradient", gradient, meaning="input × gradient of log p of {token} at each image token", unit="nats"
)
