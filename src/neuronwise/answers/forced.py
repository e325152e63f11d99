"""Teacher forcing: which token is most probable at each place of an answer, and how probable the answer is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from neuronwise.errors import NonFiniteError
from neuronwise.model.batches import batches, batching
from neuronwise.model.model import Model
from neuronwise.model.prompt import Inputs
from neuronwise.model.stacking import stackable

T = TypeVar("T")


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


def read_forced(model: Model, asked: Sequence[tuple[Inputs, Sequence[int]]]) -> list[Reading]:
    """Readings of answers behind prompts, in batches where the architecture allows it.

    Raises ``NonFiniteError`` when the model gives no finite probabilities.
    """
    return forced_as(model, asked, _reading)


@torch.no_grad()
def forced_as(
    model: Model, asked: Sequence[tuple[Inputs, Sequence[int]]], read: Callable[[Tensor, Sequence[int]], T]
) -> list[T]:
    """``read(logits, ids)`` of each answer behind its prompt, ``logits`` (T, V) those that predict its T tokens.

    In batches where the architecture gives in one what each gives alone. The last token of an answer is never fed, and
    a sequence of text that begins another is read from that one.
    """
    sequences = [model.extend(inputs, list(ids)[:-1]) for inputs, ids in asked]
    texts = bool(asked) and stackable([inputs for inputs, _ in asked]) and batching(model).right
    hosts = _hosts([tuple(s["input_ids"][0].tolist()) for s in sequences]) if texts else list(range(len(asked)))
    guests: dict[int, list[int]] = {}
    for index, host in enumerate(hosts):
        guests.setdefault(host, []).append(index)
    chosen = sorted(guests)
    readings: dict[int, T] = {}
    starts = [inputs["input_ids"].shape[1] - 1 if texts else -len(ids) for inputs, ids in asked]
    for group, together in batches(model, [sequences[host] for host in chosen]):
        members = [chosen[place] for place in group]
        places = [[starts[index] + step for index in guests[host] for step in range(len(asked[index][1]))]
                  for host in members]  # fmt: skip
        rows = [[together.row(number, place) for place in own] for number, own in enumerate(places)]
        alone = len(members) == 1 and not texts  # places count from the end, in a decoder of its own too
        logits = model.forward(together.inputs, rows=places[0] if alone else rows)[0]
        for index in itertools.chain.from_iterable(guests[host] for host in members):
            ids = asked[index][1]
            readings[index], logits = read(logits[: len(ids)], ids), logits[len(ids) :]
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


def _reading(logits: Tensor, ids: Sequence[int]) -> Reading:
    said, own = log_probs(logits, ids)
    return Reading(tuple(ids), tuple(said.argmax(-1).tolist()), float(own.mean()))


def log_probs(logits: Tensor, ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(T, V) of all tokens and (T, 1) of ``ids``, float32; raises ``NonFiniteError`` where the latter are not."""
    said = logits.float().log_softmax(-1)
    own = said.gather(1, torch.tensor([list(ids)], device=said.device).T)
    if not torch.isfinite(own).all():
        raise NonFiniteError("The model gives no finite probabilities; load it with dtype=torch.float32, or edit less.")
    return said, own
