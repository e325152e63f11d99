"""A fact as the model reads it, and requests that pass the model side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.errors import MethodError
from neuronwise.images import ImageLike
from neuronwise.model.batches import batch
from neuronwise.model.model import Model
from neuronwise.model.prompt import Inputs
from neuronwise.model.run import Run

PADDED = {"input_ids", "attention_mask"}  # inputs that padding on the right leaves right in a causal decoder


@dataclass(eq=False)
class Request:
    """A fact's prompt with its new target forced behind it, as one ``run``.

    ``said`` is what the unedited model says at each of the target's positions, once ``observe`` has asked.
    """

    fact: Fact
    run: Run = field(repr=False)
    said: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, model: Model, fact: Fact, image: ImageLike | None = None, *, prepend_end: bool = False) -> Request:
        """The request of a fact; with ``image`` it is asked about that photo.

        ``prepend_end``: a text is read behind the end token; raises ``MethodError`` for a tokenizer that has none.
        """
        run = forced(model, fact, image)
        return cls(fact, _behind_end(run) if prepend_end and run.image is None else run)

    @property
    def target(self) -> Tensor:
        """(T,) tokens."""
        return torch.tensor(self.run.output_ids)

    @property
    def length(self) -> int:
        """Rows of prompt and target together."""
        return self.run.length

    @property
    def prompt_length(self) -> int:
        """Rows of the prompt alone."""
        return self.length - len(self.run.output_ids)

    @property
    def answer_rows(self) -> slice:
        """The rows that predict the target's tokens."""
        return slice(self.prompt_length - 1, self.length - 1)

    @property
    def held_rows(self) -> slice:
        """The rows of the prompt whose predictions must stay: all but its last."""
        return slice(0, self.prompt_length - 1)

    @property
    def pads(self) -> bool:
        """Whether it may be padded beside others: text alone, read by a decoder alone."""
        return set(self.run.forced_inputs()) <= PADDED and not self.run.model.is_encoder_decoder


def _behind_end(run: Run) -> Run:
    """The same run with the end token before its prompt."""
    model = run.model
    end = model.tokenizer.eos_token_id
    if end is None:
        raise MethodError(f"The tokenizer of {model.name} has no end token to prepend; use prepend_end=False.")
    ids = torch.tensor([[end, *run.prompted.input_ids]])
    inputs = {**run.prompted.inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return Run.of(model, replace(run.prompted, inputs=inputs), run.output_ids)


@dataclass(frozen=True)
class Batch:
    """Requests side by side, padded on the right, which no real row of a causal decoder sees.

    A request alone keeps its inputs as they are, whatever they hold.
    """

    model: Model
    requests: Sequence[Request]
    inputs: Inputs

    @classmethod
    def of(cls, model: Model, requests: Sequence[Request]) -> Batch:
        """The batch of some requests."""
        return cls(model, requests, batch(model, [one.run.forced_inputs() for one in requests], "right").inputs)

    def real_rows(self, numbers: Sequence[int]) -> list[list[int]] | None:
        """For each of the requests ``numbers`` its rows without padding; None for one alone, whose padding is last."""
        return None if len(numbers) == 1 else [list(range(self.requests[number].length)) for number in numbers]

    def slices(self, numbers: Sequence[int]) -> list[slice]:
        """Where the ``real_rows`` of each of the requests ``numbers`` are, one request behind the other."""
        ends = torch.tensor([self.requests[number].length for number in numbers]).cumsum(0).tolist()
        return [slice(end - self.requests[number].length, end) for number, end in zip(numbers, ends, strict=True)]


def side_by_side(
    requests: Sequence[Request], size: int, order: Sequence[int] | None = None, alone: Sequence[bool] | None = None
) -> Iterator[list[int]]:
    """Numbers of requests to pass together, at most ``size``: neighbors in ``order``, then of similar length.

    Those marked in ``alone`` pass by themselves.
    """
    ranked = sorted(range(len(requests)), key=lambda n: (order[n] if order is not None else 0, requests[n].length))
    group: list[int] = []
    for number in ranked:
        fits = requests[number].pads and not (alone is not None and alone[number])
        if group and not (fits and len(group) < size):
            yield group
            group = []
        group.append(number)
        if not fits:
            yield group
            group = []
    if group:
        yield group
