"""A conversation in the model's own format: its chat template, in the form that it reads, and a check of the result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from neuronwise.errors import PromptError, reason
from neuronwise.images import ImageLike
from neuronwise.model.protocols import Processor, Tokenizer

Message: TypeAlias = Mapping[str, Any]  # "role", and "content": a text, or parts of type "text" and "image"
Parts: TypeAlias = list[dict[str, Any]]

_OWN = ("messages", "tokenize", "return_dict")  # what a template is given, whatever the user says
_PROBE = "neuronwise probe {}"
_PRINTED = "'type':"  # of parts that a template printed as they are


def parts_of(message: Message) -> Parts:
    """The content of a message as parts; raises ``PromptError`` for a message of another form."""
    content = message.get("content") if isinstance(message, Mapping) else None  # pyright: ignore
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):  # pyright: ignore
        raise PromptError("A message is a mapping with a role and a content: {'role': 'user', 'content': 'Hello'}.")
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, Sequence) or not all(isinstance(p, Mapping) and _fits(p) for p in content):
        raise PromptError("The content of a message is a text, or a list of parts of type 'text' or 'image'.")
    return [dict(part) for part in content]


def _fits(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "image" or (part.get("type") == "text" and isinstance(part.get("text"), str))


def require_conversation(messages: Sequence[Message]) -> None:
    """Raise ``PromptError`` for messages of another form, and where there is no question among them."""
    parts = [parts_of(message) for message in messages]
    if not any(message["role"] == "user" and own for message, own in zip(messages, parts, strict=True)):
        raise PromptError("The messages hold no question: none has the role 'user'.")


def photos_in(messages: Sequence[Message]) -> list[ImageLike]:
    """The photos that parts of messages carry: {"type": "image", "image": PHOTO}."""
    return [part["image"] for message in messages for part in parts_of(message) if part.get("image") is not None]


def with_places(messages: Sequence[Message], photos: int) -> list[dict[str, Any]]:
    """Messages with typed content and a place for each photo: where they say, else before the first user's text.

    Raises ``PromptError`` for another number of places.
    """
    typed = [{**message, "content": parts_of(message)} for message in messages]
    places = sum(part["type"] == "image" for message in typed for part in message["content"])
    if photos and not places:
        first = next(message for message in typed if message["role"] == "user")
        first["content"] = [{"type": "image"}] * photos + first["content"]
    elif places != photos:
        raise PromptError(f"The messages have places for {places} photos and {photos} are given.")
    for message in typed:
        message["content"] = [{"type": "image"} if p["type"] == "image" else p for p in message["content"]]
    return typed


def text_of(message: Message) -> str:
    """The text of a message, its photos left out."""
    return "\n".join(part["text"] for part in parts_of(message) if part["type"] == "text")


def reworded(messages: Sequence[Message], prompt: str) -> list[Message]:
    """The messages with another text in the last question; its photos stay."""
    last = max(index for index, message in enumerate(messages) if message["role"] == "user")
    photos = [part for part in parts_of(messages[last]) if part["type"] == "image"]
    content = [*photos, {"type": "text", "text": prompt}]
    return [*messages[:last], {**messages[last], "content": content}, *messages[last + 1 :]]


def render(
    owner: Processor | Tokenizer, messages: Sequence[dict[str, Any]], options: Mapping[str, object], mark: str | None
) -> str:
    """What ``owner``'s chat template makes of messages with typed content.

    Some templates read texts, some read typed parts, and neither complains of the other: which of the two a template
    reads is found by rendering probes in place of the texts. ``mark`` stands for a photo in a text. After a last
    message of the assistant the model goes on with it. Raises ``PromptError`` for a template that fails, that leaves
    out what was asked, and for ``options`` that it does not read.
    """
    _require_read(owner, options)
    texts, probes = _as_texts(messages, mark), [_probed(message, n) for n, message in enumerate(messages)]
    has_photos = any(part["type"] == "image" for message in messages for part in message["content"])
    forms = [(texts, _as_texts(probes, mark)), (messages, probes)]
    failed: PromptError | None = None
    for form, probe in reversed(forms) if has_photos else forms:
        try:
            probed = _applied(owner, probe, options)
            if _PRINTED in probed or _lost(probes, probed) is not None:
                continue
            return _whole(messages, _applied(owner, form, options))
        except PromptError as error:
            failed = failed or error
    if failed is not None:
        raise failed
    rendered = _applied(owner, texts, options)
    lost = _lost(messages, rendered)
    raise PromptError(
        "The chat template renders nothing." if not rendered.strip() or lost is None
        else f"The chat template leaves out the text of the {lost['role']}: {text_of(lost)!r:.80}."
    )  # fmt: skip


def _applied(owner: Processor | Tokenizer, messages: Sequence[dict[str, Any]], options: Mapping[str, object]) -> str:
    answered = messages[-1]["role"] == "assistant"
    ending = {"continue_final_message": True} if answered else {"add_generation_prompt": True}
    try:
        return str(owner.apply_chat_template(list(messages), tokenize=False, **{**ending, **options}))
    except Exception as error:  # a template is a program of the checkpoint's own: it may raise anything
        raise PromptError(f"The chat template cannot render this: {reason(error)}.") from error


def _whole(messages: Sequence[Message], rendered: str) -> str:
    """The rendered text, which holds what was asked."""
    lost = _lost(messages, rendered)
    if lost is not None:
        raise PromptError(f"The chat template changes the text of the {lost['role']}: {text_of(lost)!r:.80}.")
    return rendered


def _lost(messages: Sequence[Message], rendered: str) -> Message | None:
    """The first message whose text is not in the rendered one.

    Templates trim texts, and leave out the reasoning of earlier answers.
    """
    known = " ".join(rendered.split())
    for message in messages:
        said = text_of(message)
        said = said.rpartition("</think>")[2] if message["role"] == "assistant" else said
        if not all(" ".join(line.split()) in known for line in said.splitlines()):
            return message
    return None


def _probed(message: dict[str, Any], number: int) -> dict[str, Any]:
    texts = [part for part in message["content"] if part["type"] == "text"]
    probe = [{"type": "text", "text": _PROBE.format(number)}] if texts else []
    return {**message, "content": [part for part in message["content"] if part["type"] == "image"] + probe}


def _as_texts(messages: Sequence[dict[str, Any]], mark: str | None) -> list[dict[str, Any]]:
    def text(part: dict[str, Any]) -> str:
        return part["text"] if part["type"] == "text" else mark or ""

    return [{**message, "content": "\n".join(map(text, message["content"]))} for message in messages]


def _require_read(owner: Processor | Tokenizer, options: Mapping[str, object]) -> None:
    source = getattr(owner, "chat_template", None)
    for name in options:
        if name in _OWN or (isinstance(source, str) and not re.search(rf"\b{re.escape(name)}\b", source)):
            raise PromptError(f"The chat template reads no option {name!r}.")
