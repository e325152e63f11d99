"""Requests: a fact as the model reads it, its new target teacher-forced behind the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from neuronwise.data.facts import Fact
from neuronwise.errors import EditError
from neuronwise.model.model import Model
from neuronwise.model.prompt import exact_tokens
from neuronwise.model.run import Run


def listed(facts: Fact | Sequence[Fact]) -> list[Fact]:
    """One fact or several, as a list; raises ``EditError`` for none, and for anything else."""
    given: Any = facts
    found: list[Any] = [given] if isinstance(given, (Fact, str)) or not isinstance(given, Iterable) else list(given)
    strange = next((one for one in found if not isinstance(one, Fact)), None)
    if strange is not None or given is None:
        raise EditError(f"An editor takes a Fact or a list of them, not {strange!r:.80}; a case's is case.fact.")
    if not found:
        raise EditError("There is no fact to edit.")
    return found


def target_ids(model: Model, target: str) -> list[int]:
    """Tokens of a target written as a word: its leading space is added."""
    text = target if target.startswith(" ") else f" {target}"
    return list(exact_tokens(model.tokenizer, model.vocabulary_size, text).token_ids)


def forced(model: Model, fact: Fact, image: Any = None) -> Run:
    """The run that reads the fact's prompt (with its photo) and says the new target; ``forced_inputs()`` holds both.

    Text alone stands as it is, without a chat template; with an image the model's own template is used.
    """
    image = fact.image if image is None else image
    prompted, picture = model.prepare(image, fact.text, chat=None if image is not None else False)
    return Run(model, prompted, target_ids(model, fact.target_new), [], picture)
