"""Requests that pass the model together: right padding, and the rows of each that are real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.model import Model
from neuronwise.model.run import Run

PADDED = {"input_ids", "attention_mask"}  # inputs that padding on the right leaves right in a causal decoder


class Batch:
    """Requests side by side. ``inputs`` holds them padded on the right, which no real row of a causal decoder sees.

    ``lengths`` counts the real rows of each. A request alone keeps its inputs as they are, whatever they hold.
    """

    def __init__(self, model: Model, requests: Sequence[Run]) -> None:
        self.model = model
        self.requests = list(requests)
        self.lengths = [request.length for request in self.requests]
        alone = [request.forced_inputs() for request in self.requests]
        self.inputs = alone[0] if len(alone) == 1 else _padded(alone, max(self.lengths))
        self.repeats = paddable(model, self.requests[0])  # whether a request may stand in a pass several times

    def row(self, number: int, position: int) -> int:
        """The row that predicts target token ``position`` of request ``number``."""
        return self.lengths[number] + self.requests[number].row(position)

    def real_rows(self, hooks: Hooks, shown: Sequence[int]) -> list[slice]:
        """Let only real rows of the requests ``shown`` pass the output head: logits are (1, all their rows, V).

        Returns the slice of rows of each. A single request is left as it is: all its rows are real.
        """
        ends = torch.tensor([self.lengths[number] for number in shown]).cumsum(0).tolist()
        slices = [slice(end - self.lengths[number], end) for number, end in zip(shown, ends, strict=True)]
        if len(shown) > 1:
            owners = torch.cat([torch.full((self.lengths[n],), place) for place, n in enumerate(shown)])
            positions = torch.cat([torch.arange(self.lengths[number]) for number in shown])

            def keep(module: Any, args: Any, kwargs: Any) -> Any:
                hidden: Tensor = first_tensor(args, kwargs)
                chosen = hidden[owners.to(hidden.device), positions.to(hidden.device)]
                return replace_first(args, kwargs, chosen.unsqueeze(0))

            hooks.before(self.model.head, keep)
        return slices

    def answer_rows(self, hooks: Hooks) -> None:
        """Let only the rows that predict target tokens pass the output head, request by request: (1, all, V)."""
        spots = [(n, self.row(n, k)) for n, request in enumerate(self.requests) for k in range(len(request.output_ids))]
        items, rows = (torch.tensor(part) for part in zip(*spots, strict=True))

        def keep(module: Any, args: Any, kwargs: Any) -> Any:
            hidden: Tensor = first_tensor(args, kwargs)
            whole = hidden.reshape(len(self.requests), -1, hidden.shape[-1])
            return replace_first(args, kwargs, whole[items.to(hidden.device), rows.to(hidden.device)].unsqueeze(0))

        hooks.before(self.model.head, keep)


def paddable(model: Model, request: Run) -> bool:
    """Whether a request may share a pass with others: text alone, read by a decoder alone."""
    return set(request.forced_inputs()) <= PADDED and not model.is_encoder_decoder


def groups(
    model: Model, requests: Sequence[Run], size: int, order: Sequence[Any], alone: Sequence[bool] | None = None
) -> list[list[int]]:
    """Numbers of requests to pass together, at most ``size``: neighbors in ``order``, then of similar length.

    Those marked in ``alone`` pass by themselves.
    """
    ranked = sorted(range(len(requests)), key=lambda number: (order[number], requests[number].length))
    found: list[list[int]] = []
    open_group = False
    for number in ranked:
        fits = paddable(model, requests[number]) and not (alone is not None and alone[number])
        if fits and open_group and len(found[-1]) < size:
            found[-1].append(number)
        else:
            found.append([number])
        open_group = fits
    return found


def _padded(alone: Sequence[dict[str, Any]], longest: int) -> dict[str, Any]:
    ids = torch.zeros(len(alone), longest, dtype=torch.long)  # what stands in the padding is never looked at
    mask = torch.zeros_like(ids)
    for number, inputs in enumerate(alone):
        length = inputs["input_ids"].shape[1]
        ids[number, :length] = inputs["input_ids"][0]
        mask[number, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}
