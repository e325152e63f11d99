"""Runs that say a word which is to leave or enter what a model says, and the positions at which they say it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image

from neuronwise.errors import EditError, TargetError
from neuronwise.files.kinds import a
from neuronwise.images import ImageLike
from neuronwise.model.concepts import Occurrence
from neuronwise.model.model import Model
from neuronwise.model.prompt import exact_tokens
from neuronwise.model.run import Run

Seen: TypeAlias = "Run | ImageLike | Sequence[Run | ImageLike]"


def runs_of(model: Model, seen: Seen | None) -> list[Run]:
    """One run or several: photos are captioned with the model's default prompt. Raises ``EditError`` for none."""
    runs = any_runs_of(model, seen)
    if not runs:
        raise EditError("There is nothing to edit by: give a run or a photo.")
    return runs


def any_runs_of(model: Model, seen: Seen | None) -> list[Run]:
    """As ``runs_of``, but possibly none."""
    if seen is None:
        return []
    if isinstance(seen, Run | str | os.PathLike | Image.Image | np.ndarray):
        seen = [seen]
    if not isinstance(seen, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise EditError(f"An edit of captions takes runs or photos, not {a(type(seen).__name__)}.")
    return [item if isinstance(item, Run) else model.run(image=item) for item in seen]


@dataclass(frozen=True)
class TokenPosition:
    """One position where a run says the source: ``position`` counts generated tokens and is that of its first one.

    ``source_id`` is that token, ``target_id`` the first token of the target written in the same way (space before it,
    capital, number); ``target`` is that writing.
    """

    run: Run
    position: int
    source_id: int
    target_id: int
    target: str
    note: str | None

    @property
    def row(self) -> int:
        """The row of the full sequence that predicts the source."""
        return self.run.length + self.run.row(self.position)


def positions_of(model: Model, run: Run, source: str, target: str) -> list[TokenPosition]:
    """All positions where the run says ``source``, with the two tokens that compete there.

    Raises ``TargetError``, listing the nouns, when it does not say it, and when both words start with one token: then
    no token tells them apart at the position that predicts the word.
    """
    from textblob.en.inflect import pluralize, singularize

    concept = run.concept(source)
    asked, said, target = source.strip(), concept.word, target.strip()
    if said.lower() != asked.lower():
        target = pluralize(target) if said.lower() == pluralize(asked).lower() else singularize(target)
    return [_position(model, run, asked, said, target, occurrence) for occurrence in concept.occurrences]


def _position(model: Model, run: Run, asked: str, said: str, target: str, occurrence: Occurrence) -> TokenPosition:
    piece = occurrence.tokens[0]
    space = piece[: len(piece) - len(piece.lstrip())]
    opens = piece.strip()[:1].isupper() and not asked[:1].isupper()  # a sentence: the capital is not the word's
    written = space + (target[:1].upper() + target[1:] if opens else target)
    tokens = exact_tokens(model.tokenizer, model.vocabulary_size, written)
    source_id = occurrence.token_ids[0]
    if tokens.token_id == source_id:
        raise TargetError(f"{said!r} and {written.strip()!r} start with the same token {piece!r}; name another target.")
    counts = ((said, len(occurrence.token_ids)), (written.strip(), len(tokens.token_ids)))
    note = "; ".join(f"{word!r} is {n} tokens, of which the first is swapped" for word, n in counts if n > 1)
    return TokenPosition(run, occurrence.positions[0], source_id, tokens.token_id, written, note or None)
