"""Requests: a fact as the model reads it, its new target teacher-forced behind the prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from PIL import Image

from neuronwise.answers.forced import read_forced
from neuronwise.data.facts import Fact
from neuronwise.data.facts.fact import join_is_open, joined
from neuronwise.errors import EditError, TargetError
from neuronwise.images import ImageLike
from neuronwise.model.model import Model
from neuronwise.model.prompt import Inputs, Message, Prompted, exact_tokens
from neuronwise.model.run import Run


def listed(facts: Fact | Sequence[Fact]) -> list[Fact]:
    """One fact or several, as a list; raises ``EditError`` for none, for anything else, and for facts that contradict.

    Two facts contradict that ask the same of the same photo and have two targets.
    """
    found: list[Fact] = []
    for one in _several(facts):
        if not isinstance(one, Fact):
            raise EditError(f"An editor takes a Fact or a list of them, not {one!r:.80}; a case's is case.fact.")
        found.append(one)
    if not found:
        raise EditError("There is no fact to edit.")
    targets: dict[tuple[str | None, ...], str] = {}
    for fact in found:
        target = targets.setdefault((" ".join(fact.text.split()), fact.image, fact.system), fact.target_new.strip())
        if target != fact.target_new.strip():
            other = fact.target_new.strip()
            raise EditError(f"Two facts contradict: {fact.text!r} cannot be both {target!r} and {other!r}; leave one.")
    return found


def requests(model: Model, facts: Fact | Sequence[Fact], image: ImageLike | None = None) -> list[Fact]:
    """``listed`` facts, each with its ``join`` where only the model can say it, see ``joins``."""
    return decided(model, listed(facts), image)


def decided(model: Model, facts: Sequence[Fact], image: ImageLike | None = None) -> list[Fact]:
    """As ``requests``, of facts that may contradict."""
    asked = [one.image if image is None else image for one in facts]
    laid = [
        laid_out(model, one.text, photo, chat=one.chat, system=one.system)[0]
        for one, photo in zip(facts, asked, strict=True)
    ]
    said = joins(model, [(prompted, one.target_new, one.join) for one, prompted in zip(facts, laid, strict=True)])
    return [one if one.join == join else replace(one, join=join) for one, join in zip(facts, said, strict=True)]


def joins(model: Model, asked: Sequence[tuple[Prompted, str, str | None]]) -> list[str | None]:
    """What is between each prompt and target: ``join`` where it is given, None where ``joined`` decides.

    Where spelling leaves it open the model decides, as it is now: a blank or nothing, whichever makes the target
    likelier; where the vocabulary has only one of them, that. Where both are the same tokens ``joined`` decides.
    """
    found = [join for _, _, join in asked]
    ways: list[tuple[int, tuple[Inputs, list[int]]]] = []
    for number, (prompted, target, join) in enumerate(asked):
        before = followed(model, prompted)
        if join is None and join_is_open(before, target):
            bare, apart = (_ids_or_none(model, target, before, way) for way in ("", " "))
            if bare and apart and bare != apart:
                ways += [(number, (prompted.inputs, bare)), (number, (prompted.inputs, apart))]
            elif bool(bare) != bool(apart):
                found[number] = "" if bare else " "
    likely = [len(one.ids) * one.log_prob for one in read_forced(model, [pair for _, pair in ways])]
    for (number, _), bare, apart in zip(ways[::2], likely[::2], likely[1::2], strict=True):
        found[number] = "" if bare > apart else " " if apart > bare else None
    return found


def _ids_or_none(model: Model, target: str, prompt: str, join: str) -> list[int] | None:
    try:
        return target_ids(model, target, prompt, join)
    except TargetError:
        return None


def _several(given: object) -> list[object]:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def target_ids(model: Model, target: str, prompt: str = "", join: str | None = None) -> list[int]:
    """Tokens of a target as it follows a prompt, see ``joined``; "" is that of a decoder that begins anew."""
    text = joined(prompt, target, join)
    if prompt and not text[:1].isspace():  # some tokenizers write a blank before every text; not within one
        head, whole = (model.tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prompt, prompt + text))
        if len(whole) > len(head) and whole[: len(head)] == head:
            return list(whole[len(head) :])
    return list(exact_tokens(model.tokenizer, model.vocabulary_size, text).token_ids)


def laid_out(
    model: Model, prompt: str, image: ImageLike | None = None, *, chat: bool = False, system: str | None = None
) -> tuple[Prompted, Image.Image | None]:
    """A fact's prompt as the model reads it: text as it is, in a ``chat`` or with a photo by the model's template."""
    if image is not None or not chat:
        return model.prepare(image, prompt, chat=None if image is not None else False)
    before: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    return model.prepare(messages=[*before, {"role": "user", "content": prompt}])


def followed(model: Model, prompted: Prompted) -> str:
    """The text that a target follows: the prompt, in a chat and behind a photo as the template has it.

    Of a photo only what comes behind its tokens; "" for a decoder that begins anew.
    """
    if model.is_encoder_decoder:
        return ""
    if not prompted.chat and not prompted.ask.images:
        return prompted.prompt
    ids = prompted.input_ids
    photo = max((place for place, token in enumerate(ids) if token == model.image_token_id), default=-1)
    return model.tokenizer.decode(ids[photo + 1 :], skip_special_tokens=False, clean_up_tokenization_spaces=False)


def taught(model: Model, fact: Fact, image: ImageLike | None = None) -> str:
    """The new target as it follows the fact's prompt; in a chat and behind a photo what its template ends in."""
    image = fact.image if image is None else image
    if not fact.chat and image is None:
        return fact.answer
    prompted, _ = laid_out(model, fact.text, image, chat=fact.chat, system=fact.system)
    return joined(followed(model, prompted), fact.target_new, fact.join)


def answer_ids(model: Model, fact: Fact) -> list[int]:
    """Tokens of a fact's new target behind its prompt."""
    return forced(model, fact).output_ids


def forced(model: Model, fact: Fact, image: ImageLike | None = None) -> Run:
    """The run that reads the fact's prompt (with its photo) and says the new target; ``forced_inputs()`` holds both.

    Text alone is read as it is, without a chat template unless the fact says so; see ``laid_out``.
    """
    image = fact.image if image is None else image
    prompted, picture = laid_out(model, fact.text, image, chat=fact.chat, system=fact.system)
    ids = target_ids(model, fact.target_new, followed(model, prompted), fact.join)
    return Run.of(model, prompted, ids, picture)
