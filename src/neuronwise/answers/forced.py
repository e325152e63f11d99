"""Teacher forcing: which tokens a model would say at each place of an answer, and how probable the answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuronwise.errors import NonFiniteError
from neuronwise.model.batches import Inputs, batching, grouped, padded, stackable
from neuronwise.model.hooks import Hooks, first_tensor, replace_first
from neuronwise.model.model import Model


@dataclass(frozen=True)
class Reading:
    """An answer's tokens ``ids``, the tokens ``best`` that are argmax in their places, the mean log probability."""

    ids: tuple[int, ...]
    best: tuple[int, ...]
    log_prob: float

    @property
    def share(self) -> float:
        """Share of the answer's tokens that are argmax."""
        return sum(a == b for a, b in zip(self.ids, self.best, strict=True)) / len(self.ids)


@torch.no_grad()
def read_forced(model: Model, asked: Sequence[tuple[Inputs, Sequence[int]]]) -> list[Reading]:
    """Readings of answers behind prompts, in batches where the architecture allows it.

    The last token of an answer is never fed, and a sequence that begins another is read from that one. Raises
    ``NonFiniteError`` when the model gives no finite probabilities.
    """
    together = stackable([inputs for inputs, _ in asked]) and batching(model).right if asked else False
    if not together:
        return [_alone(model, inputs, ids) for inputs, ids in asked]
    sequences = [model.extend(inputs, list(ids)[:-1]) for inputs, ids in asked]
    hosts = _hosts([tuple(sequence["input_ids"][0].tolist()) for sequence in sequences])
    readings: dict[int, Reading] = {}
    chosen = sorted(set(hosts))
    for group in grouped([sequences[host]["input_ids"].shape[1] for host in chosen]):
        members = [chosen[index] for index in group]
        guests = [index for index, host in enumerate(hosts) if host in members]
        places = [
            (members.index(hosts[index]), asked[index][0]["input_ids"].shape[1] - 1 + step)
            for index in guests
            for step in range(len(asked[index][1]))
        ]
        logits = _rows(model, padded([sequences[host] for host in members], "right"), places)
        start = 0
        for index in guests:
            ids = asked[index][1]
            readings[index] = _reading(logits[start : start + len(ids)], ids)
            start += len(ids)
    return [readings[index] for index in range(len(asked))]


def _hosts(sequences: Sequence[tuple[int, ...]]) -> list[int]:
    """For each sequence the index of one that begins with it (its own when none other does)."""
    hosts: dict[tuple[int, ...], int] = {}
    for index in sorted(range(len(sequences)), key=lambda i: (-len(sequences[i]), i)):
        sequence = sequences[index]
        if sequence not in hosts:
            for end in range(1, len(sequence) + 1):
                hosts.setdefault(sequence[:end], index)
    return [hosts[sequence] for sequence in sequences]


def _rows(model: Model, inputs: Inputs, places: Sequence[tuple[int, int]]) -> Tensor:
    """Logits (places, V) of (sequence, row) pairs: no other passes the output head."""
    sequence = torch.tensor([place[0] for place in places])
    row = torch.tensor([place[1] for place in places])

    def keep(module: Any, args: Any, kwargs: Any) -> Any:
        hidden = first_tensor(args, kwargs)
        return replace_first(args, kwargs, hidden[sequence.to(hidden.device), row.to(hidden.device)].unsqueeze(0))

    with Hooks() as hooks:
        hooks.before(model.head, keep)
        return model.forward(inputs)[0]


def _alone(model: Model, inputs: Inputs, ids: Sequence[int]) -> Reading:
    rows = list(range(-len(ids), 0))
    return _reading(model.forward(model.extend(inputs, list(ids)[:-1]), rows=rows)[0], ids)


def _reading(logits: Tensor, ids: Sequence[int]) -> Reading:
    said = logits.float().log_softmax(-1)
    own = said.gather(1, torch.tensor([list(ids)], device=said.device).T).mean()
    if not torch.isfinite(own):
        raise NonFiniteError("The model gives no finite probabilities; load it with dtype=torch.float32, or edit less.")
    return Reading(tuple(ids), tuple(said.argmax(-1).tolist()), float(own))
