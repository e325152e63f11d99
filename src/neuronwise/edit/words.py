"""Words that are to leave or enter what a model says: the runs that say them, where, and how they are written there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from neuronwise.errors import EditError, TargetError
from neuronwise.images import ImageLike
from neuronwise.model.model import Model
from neuronwise.model.prompt import exact_tokens
from neuronwise.model.run import Run

Seen: TypeAlias = "Run | ImageLike | Sequence[Run | ImageLike]"


def runs_of(model: Model, seen: Seen) -> list[Run]:
    """One run or several: photos are captioned in the model's own habit. Raises ``EditError`` for none."""
    if seen is None:
        raise EditError("There is nothing to edit by: give a run or a photo.")
    one = isinstance(seen, Run | str | os.PathLike | Image.Image | np.ndarray)
    listed: list[Any] = [seen] if one else list(seen)  # type: ignore[arg-type]
    if not listed:
        raise EditError("There is nothing to edit by: give a run or a photo.")
    return [item if isinstance(item, Run) else model.run(image=item) for item in listed]


def again(model: Model, run: Run) -> str:
    """What the model says now to the prompt and photo of a run."""
    return model.run(run.image, run.prompt, max_new_tokens=run.max_new_tokens, chat=run.chat).text


@dataclass(frozen=True)
class Place:
    """One place where a run says the source: ``position`` counts generated tokens and is where its first one stands.

    ``source_id`` is that token, ``target_id`` the first token of the target written in the same way (space before it,
    capital, number); ``target`` is that writing.
    """

    run: Run
    position: int
    source_id: int
    target_id: int
    target: str
    note: str | None


def places_of(model: Model, run: Run, source: str, target: str) -> list[Place]:
    """All places where the run says ``source``, with the tokens that stand against each other there.

    Raises ``TargetError``, listing the nouns, when it does not say it, and when both words start with one token: then
    no token tells them apart at the position that predicts the word.
    """
    from textblob.en.inflect import pluralize, singularize

    concept = run.concept(source)
    asked, said = source.strip(), concept.word
    target = target.strip()
    if said.lower() != asked.lower():
        target = pluralize(target) if said.lower() == pluralize(asked).lower() else singularize(target)
    places = []
    for occurrence in concept.occurrences:
        piece = occurrence.tokens[0]
        space = piece[: len(piece) - len(piece.lstrip())]
        opens = piece.strip()[:1].isupper() and not asked[:1].isupper()  # a sentence: the capital is not the word's
        written = space + (target[:1].upper() + target[1:] if opens else target)
        tokens = exact_tokens(model.tokenizer, model.vocabulary_size, written)
        if tokens.token_id == occurrence.token_ids[0]:
            raise TargetError(
                f"{said!r} and {written.strip()!r} start with the same token {piece!r}; name another target."
            )
        several = [
            f"{word!r} is {count} tokens, of which the first is swapped"
            for word, count in ((said, len(occurrence.token_ids)), (written.strip(), len(tokens.token_ids)))
            if count > 1
        ]
        place = Place(
            run, occurrence.positions[0], occurrence.token_ids[0], tokens.token_id, written, "; ".join(several) or None
        )
        places.append(place)
    return places
