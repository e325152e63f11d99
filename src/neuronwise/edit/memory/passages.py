"""What the key-value editors read: texts as tokens, and where in them the subject ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuronwise.answers.request import listed, requests
from neuronwise.data.facts import Fact
from neuronwise.edit.presets import require_model
from neuronwise.errors import MethodError
from neuronwise.model.model import Model
from neuronwise.model.prompt import Inputs
from neuronwise.model.stacking import padded


@dataclass(frozen=True)
class Passage:
    """Tokens that the model reads, and the row of the last token of the subject among them."""

    ids: tuple[int, ...]
    subject: int


@dataclass(frozen=True)
class Passages:
    """Passages side by side, padded on the right: a causal model reads each as if it were alone.

    ``subjects`` (items,) are the rows of the subjects' last tokens.
    """

    inputs: Inputs
    subjects: Tensor
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lengths)

    def at_subject(self, values: Tensor) -> Tensor:
        """(items, width): the subjects' rows of ``values`` (items, positions, width), also when these are flat."""
        whole = values.reshape(len(self), -1, values.shape[-1])
        return whole[torch.arange(len(self), device=values.device), self.subjects.to(values.device)]

    def last_rows(self, item: int, count: int) -> list[int]:
        """The rows of a passage's last ``count`` tokens."""
        return list(range(self.lengths[item] - count, self.lengths[item]))


def require_text(model: Model, facts: Sequence[Fact], method: str) -> None:
    """Raise ``MethodError`` for what these editors cannot read: encoder-decoders and facts with a photo."""
    require_model(model)
    if model.is_encoder_decoder:
        raise MethodError(
            f"{method} needs a decoder that reads the prompt itself; {model.name} reads prompts in an encoder."
        )
    if any(fact.image is not None for fact in facts):
        raise MethodError(f"{method} edits facts asked by text; leave the image out, or use fine.")
    if any(fact.chat for fact in facts):
        raise MethodError(f"{method} edits facts in running text; leave chat out, or use fine or fine_tune.")


def text_requests(model: Model, facts: Fact | Sequence[Fact], method: str) -> list[Fact]:
    """``requests`` of text alone; raises as ``require_text``."""
    found = listed(facts)
    require_text(model, found, method)
    return requests(model, found)


def fact_passage(model: Model, fact: Fact, prefix: str = "", ending: Sequence[int] = ()) -> Passage:
    """``prefix`` and the fact's prompt, then the tokens ``ending``."""
    end = len(prefix) + fact.prompt.index("{}") + len(fact.subject.rstrip())
    return _passage(model, prefix + fact.text, end, ending)


def essence_passage(model: Model, fact: Fact) -> Passage:
    """The passage "{subject} is a": what the subject is must stay."""
    return _passage(model, f"{fact.subject} is a", len(fact.subject.rstrip()))


def _passage(model: Model, text: str, end: int, ending: Sequence[int] = ()) -> Passage:
    ids = model.prepare(prompt=text, chat=False, bare=True)[0].input_ids
    whole = (*ids, *ending)
    model.require_ids(whole)
    return Passage(whole, token_of(model.tokenizer, text, ids, end - 1))


def token_of(tokenizer: Any, text: str, ids: Sequence[int], character: int) -> int:
    """The last row of ``ids``, the tokens of ``text``, that holds a character: by offsets where the tokenizer has them.

    Several tokens can be bytes of one character; without offsets it is where the tokens of the text up to that
    character end, or where they begin to differ when a token runs beyond it.
    """
    try:
        spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][: len(ids)]
    except (NotImplementedError, ValueError, TypeError, KeyError):
        spans = []
    rows = [row for row, (first, after) in enumerate(spans) if first <= character < after]
    if rows:
        return rows[-1]
    head = tokenizer(text[: character + 1])["input_ids"]
    shared = next((row for row, (a, b) in enumerate(zip(ids, head, strict=False)) if a != b), min(len(ids), len(head)))
    closed = shared == len(head) - 1 and head[-1] == getattr(tokenizer, "eos_token_id", None)  # it ends every text
    return max(shared - 1, 0) if closed or shared == len(head) else min(shared, len(ids) - 1)


def side_by_side(model: Model, passages: Sequence[Passage]) -> Passages:
    """Passages as one batch, padded on the right and masked there."""
    tokenizer = model.tokenizer
    filler = next((t for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(t, int)), 0)
    inputs = padded([{"input_ids": torch.tensor([passage.ids])} for passage in passages], "right", filler)
    subjects = torch.tensor([passage.subject for passage in passages])
    return Passages(inputs, subjects, tuple(len(passage.ids) for passage in passages))
