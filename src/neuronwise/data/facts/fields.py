"""Taking the fields of one record: whatever is missing or of the wrong kind is named."""

from __future__ import annotations

import os
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from neuronwise.data.facts.fact import Fact, Probe, templated
from neuronwise.data.facts.tracked import Tracked
from neuronwise.errors import NeuronwiseError


class RecordError(NeuronwiseError):
    """Why one record makes no case; it becomes a ``Problem`` with the record's place."""


@dataclass
class Record:
    """One record's fields. What the fact needs raises ``RecordError``; what is wrong with the rest goes to ``notes``.

    ``images`` is the folder below which the photos that a record names are found. What of the ``fields`` nobody takes
    is ``unread``.
    """

    fields: Mapping[str, object]
    images: Path | None = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not isinstance(self.fields, Tracked):
            self.fields = Tracked(self.fields)

    @property
    def unread(self) -> tuple[str, ...]:
        """The fields that hold something and were not read so far, each once."""
        assert isinstance(self.fields, Tracked)
        return tuple(dict.fromkeys(self.fields.unread()))

    def has(self, name: str) -> bool:
        """Whether a field is there; null is no value."""
        return self.fields.get(name) is not None

    def text(self, *names: str) -> str:
        """The first of the fields that is there, as text that is not blank; raises ``RecordError`` otherwise."""
        name = next((name for name in names if self.has(name)), None)
        if name is None:
            raise RecordError(f"it has no field {' or '.join(map(repr, names))}.")
        return checked(self.fields[name], name)

    def maybe(self, *names: str) -> tuple[str, ...]:
        """All texts of those of the fields that are there, however nested, each once."""
        there = [name for name in names if self.has(name)]
        return tuple(dict.fromkeys(one for name in there for one in self.texts(name, self.fields[name])))

    def texts(self, name: str, value: object) -> list[str]:
        """The texts in a value, one or lists of them; blank ones and other kinds are noted by the name."""
        found = []
        for one in _leaves(value):
            try:
                found.append(checked(one, name))
            except RecordError as error:
                self.notes.append(str(error))
        return found

    def fact(self, prompt: str, subject: str, target_new: str, target_true: str | None) -> Fact:
        """The fact with its prompt as a template, and with its photo where the record names one."""
        image = str(self.photo("image")) if self.has("image") else None
        chat = self.fields.get("chat") or False
        if not isinstance(chat, bool):
            raise RecordError(f"its chat is {_kind(chat)}, not true or false.")
        system = self.text("system") if self.has("system") else None
        join = self.fields.get("join")
        if not isinstance(join, (str, types.NoneType)):
            raise RecordError(f"its join is {_kind(join)}, not a text.")
        prompt = template(prompt, subject)
        return Fact(prompt, subject, target_new, target_true, image, join, chat, system)

    def photo(self, name: str) -> Path:
        """The photo that a field names, found below the folder of photos; raises ``RecordError`` without it."""
        return self.photo_of(self.text(name), name)

    def photo_of(self, text: str, name: str) -> Path:
        """As ``photo``, of a path. An absolute one of another machine is looked for by its name."""
        path = Path(text)
        if not path.is_absolute():
            if self.images is None:
                raise RecordError(f"its {name} {str(path)!r} is a relative path; name the folder of photos by images=.")
            path = self.images / path
        elif self.images is not None and not os.path.isfile(path):
            path = self.images / path.name
        if not os.path.isfile(path):
            raise RecordError(f"there is no photo '{path}' of its {name}; images= names the folder of photos.")
        return path

    def probes(self, name: str, prompts: object, answers: object, image: Path | None = None) -> Iterator[Probe]:
        """A probe for each of the prompts, all with the same answers."""
        known = () if answers is None else tuple(dict.fromkeys(self.texts(f"{name}: answer", answers)))
        for prompt in self.texts(f"{name}: prompt", prompts):
            yield Probe(prompt, known, None if image is None else str(image))


def checked(value: object, name: str) -> str:
    """A text without the blanks around it; raises ``RecordError`` for other kinds, blank and broken text."""
    if not isinstance(value, str):
        raise RecordError(f"its {name} is {_kind(value)}, not text.")
    if not value.strip():
        raise RecordError(f"its {name} is empty.")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise RecordError(f"its {name} holds half a surrogate pair, which is not text.")
    return value.strip()


def template(prompt: str, subject: str) -> str:
    """The prompt with "{}" in place of the subject: as given ("{}" or "{0}"), else where ``subject_place`` finds it.

    Raises ``RecordError`` where the subject does not occur, or several "{}" do.
    """
    prompt = prompt.replace("{0}", "{}")
    if "{}" in subject:
        raise RecordError(f"its subject {subject!r} holds {{}}, which marks the subject's place.")
    if prompt.count("{}") > 1:
        raise RecordError(f"its prompt {prompt!r} has several places {{}} for one subject.")
    if "{}" in prompt:
        return prompt
    found = templated(prompt, subject)
    if found is None:
        other = re.search(re.escape(subject), prompt, re.IGNORECASE)
        hint = f" (it is written {other.group()!r} there)" if other else ""
        raise RecordError(f"its prompt {prompt!r} lacks its subject {subject!r}{hint}.")
    return found


def mapping(value: object, name: str) -> Mapping[str, object]:
    """A value that has to be an object; raises ``RecordError`` otherwise."""
    if not isinstance(value, Mapping):
        raise RecordError(f"its {name} is {_kind(value)}, not an object with fields.")
    return value


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    kinds = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
    return kinds.get(type(value), f"a {type(value).__name__}")
