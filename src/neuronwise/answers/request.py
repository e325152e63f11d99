"""Requests: a fact as the model reads it, its new target teacher-forced behind the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from neuronwise.data.facts import Fact
from neuronwise.data.facts.fact import joined
from neuronwise.errors import EditError
from neuronwise.images import ImageLike
from neuronwise.model.model import Model
from neuronwise.model.prompt import exact_tokens
from neuronwise.model.run import Run


def listed(facts: Fact | Sequence[Fact]) -> list[Fact]:
    """One fact or several, as a list; raises ``EditError`` for none, and for anything else."""
    found: list[Fact] = []
    for one in _several(facts):
        if not isinstance(one, Fact):
            raise EditError(f"An editor takes a Fact or a list of them, not {one!r:.80}; a case's is case.fact.")
        found.append(one)
    if not found:
        raise EditError("There is no fact to edit.")
    return found


def _several(given: object) -> list[object]:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def target_ids(model: Model, target: str, prompt: str = "", join: str | None = None) -> list[int]:
    """Tokens of a target as it follows a prompt, see ``joined``; "" is that of a photo, which ends in a template."""
    text = joined(prompt, target, join)
    if prompt and not text[:1].isspace():  # some tokenizers write a blank before every text; not within one
        head, whole = (model.tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prompt, prompt + text))
        if len(whole) > len(head) and whole[: len(head)] == head:
            return list(whole[len(head) :])
    return list(exact_tokens(model.tokenizer, model.vocabulary_size, text).token_ids)


def answer_ids(model: Model, fact: Fact) -> list[int]:
    """Tokens of a fact's new target behind its prompt."""
    return target_ids(model, fact.target_new, "" if fact.image else fact.text, fact.join)


def forced(model: Model, fact: Fact, image: ImageLike | None = None) -> Run:
    """The run that reads the fact's prompt (with its photo) and says the new target; ``forced_inputs()`` holds both.

    Text alone is read as it is, without a chat template; with an image the model's own template is used.
    """
    image = fact.image if image is None else image
    prompted, picture = model.prepare(image, fact.text, chat=None if image is not None else False)
    ids = target_ids(model, fact.target_new, "" if image is not None else fact.text, fact.join)
    return Run.of(model, prompted, ids, picture)
