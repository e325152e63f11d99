"""Evidence by occlusion: what a word loses when a part of the photo is taken away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from neuronwise.errors import MethodError
from neuronwise.model.batches import CLOSE, COARSE
from neuronwise.model.grid.layout import ImageGrid
from neuronwise.model.photo_tokens import PhotoTokens
from neuronwise.model.run import Run, Target
from neuronwise.model.stacking import TOKENS
from neuronwise.model.weights import dtype_of
from neuronwise.read.evidence.method import EvidenceMethod


def occlusion(run: Run, targets: Sequence[Target], tokens: PhotoTokens, *, window: int = 1) -> Tensor:
    """log p(t) − log p(t | a window of image tokens is replaced by the mean over this photo's image tokens), nats.

    ``window``: 1 for a token at a time, 3 for the 3 × 3 around it (fewer at the edges). One pass for each token, many
    side by side.
    """
    windows = windows_of(tokens.grid, window)
    occluded = Occluded(run, targets, tokens)
    return occluded.before - occluded.without(windows)


def windows_of(grid: ImageGrid, window: int) -> list[list[int]]:
    """The tokens around each token, itself included; raises ``MethodError`` for what is no window on this grid."""
    if isinstance(window, bool) or window < 1 or window % 2 == 0:
        raise MethodError(f"window is {window}; give an odd number of tokens from 1.")
    if window == 1:
        return [[token] for token in range(len(grid.positions))]
    if grid.mixing is not None:
        raise MethodError("The image's tokens of this model have no neighbors on the photo; use window=1.")
    cells = torch.arange(grid.height * grid.width).reshape(grid.height, grid.width)
    reach = window // 2
    return [
        cells[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1].flatten().tolist()
        for row, column in itertools.product(range(grid.height), range(grid.width))
    ]


class Occluded:
    """Words of one run, read with parts of its photo replaced by the mean image token.

    ``before`` is (targets, 1): their log p (nats) with everything there.
    """

    def __init__(self, run: Run, targets: Sequence[Target], tokens: PhotoTokens) -> None:
        self.run, self.tokens = run, tokens
        self._rows = [run.row(target.position) for target in targets]
        self._ids = torch.tensor([target.token_id for target in targets])
        self.before = self._read([[]], 1)
        self._batch = self._side_by_side()

    def without(self, parts: Sequence[Sequence[int]]) -> Tensor:
        """(targets, parts) log p of each word without each part of the photo's tokens."""
        size = self._batch
        return torch.cat([self._read(parts[at : at + size], size) for at in range(0, len(parts), size)], dim=1)

    def _side_by_side(self) -> int:
        """How many copies one pass takes: one for an architecture that does not give in a batch what it gives alone."""
        size = max(1, TOKENS // self.run.length)
        try:
            twice = self._read([[], []], 2)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
            return 1
        close = CLOSE.get(dtype_of(self.run.model.module), COARSE)
        return size if twice.shape[1] == 2 and bool((twice - self.before).abs().max() <= close) else 1

    @torch.no_grad()
    def _read(self, parts: Sequence[Sequence[int]], copies: int) -> Tensor:
        copies = min(copies, len(parts))
        places = self.tokens.grid.positions

        def change(read: Tensor) -> Tensor:
            fill = read[0, places.to(read.device)].float().mean(0).to(read.dtype)
            changed = read.expand(copies, -1, -1).clone()
            for copy, part in enumerate(parts):
                changed[copy, places[list(part)].to(read.device)] = fill
            return changed

        with self.tokens.read_as(change, copies):
            logits = self.run.model.forward(self.run.forced_inputs(), rows=self._rows)
        ids = self._ids.to(logits.device)
        chosen = logits.float().log_softmax(-1).gather(2, ids[None, :, None].expand(len(logits), -1, 1))
        return chosen[..., 0].T.cpu()


METHOD = EvidenceMethod(
    "occlusion",
    occlusion,
    meaning="how much log p of {token} falls when an image token is replaced by the mean image token",
    unit="nats",
)
