"""Facts: what an edit is asked to change, and the questions that measure it, as plain records."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from neuronwise.data.scripts import SPACELESS, apart
from neuronwise.errors import PromptError, TargetError

PORTABILITY = ("subject_aliasing", "reasoning", "logical_generalization", "image_generality")
LOCALITY = ("relation_specificity", "forgetfulness", "neighborhood", "attribute", "unrelated", "unrelated_image")


# Prompts that end so go on without a blank: in an opening bracket or quote, a dash or slash that joins words, a sign
# that is put before a word or number, an elision (French l').
_OPEN = re.compile(
    r"""(?:[(\[{“‘«‹„‚¿¡]|(?:^|[\s(\[{])["']|\w[-‐‑–—/]|(?<!\d)(?<!\d\s)[$€£¥#@]|(?:\b\w|[^\W_s])['’])$"""
)
# Targets that begin so follow without a blank: punctuation that closes or parts, and a genitive.
_CLOSING = re.compile(r"[.,;:!?%)\]}”»›…]|['’]s\b")


def subject_place(text: str, subject: str) -> int | None:
    """Where a text has its subject: its last occurrence, as a word of its own rather than inside a longer one.

    The last one, since by then a model has read all that comes before. None where it does not occur.
    """
    places = [found.start() for found in re.finditer(f"(?={re.escape(subject)})", text)]  # they may overlap
    if len(places) > 1:  # to compile what tells words takes longer than all else
        places = [found.start() for found in re.finditer(apart(re.escape(subject)), text)] or places
    return places[-1] if places else None


def templated(prompt: str, subject: str) -> str | None:
    """The prompt with "{}" where ``subject_place`` finds the subject; None where it does not occur."""
    place = subject_place(prompt, subject)
    return None if place is None else f"{prompt[:place]}{{}}{prompt[place + len(subject) :]}"


def joined(prompt: str, target: str, join: str | None = None) -> str:
    """A target as it follows a prompt: after one blank, unless the prompt ends in a blank or in what opens or joins
    words, the target begins with what closes them, or their script has no blanks. ``join`` says what is between them;
    a blank at the target's beginning is meant so."""
    word = target.strip()
    if join is not None:
        return join + word
    if prompt[-1:].isspace():
        return word
    if target[:1].isspace():
        return target[: len(target) - len(target.lstrip())] + word
    if prompt and (_OPEN.search(prompt) or _CLOSING.match(word)):
        return word
    before = next((letter for letter in reversed(prompt) if letter.isalnum()), word)
    return word if SPACELESS.match(before) else f" {word}"


def join_is_open(prompt: str, target: str) -> bool:
    """Whether spelling leaves open what ``joined`` decides: the prompt ends in a sign, such as a colon or a quote, or
    a script without blanks between words meets one with them."""
    word = target.strip()
    if not prompt or prompt[-1].isspace() or target[:1].isspace() or not word[:1].isalnum():
        return False
    before, after = (bool(SPACELESS.match(letter)) for letter in (prompt[-1], word[0]))
    sign = unicodedata.category(prompt[-1])[0] not in "LMN"
    return before != after or (sign and not before)


@dataclass(frozen=True)
class Fact:
    """One request: ``prompt`` with "{}" in place of the subject, and the answer that it should get.

    ``text`` is the prompt with the subject filled in; ``image`` is the path of a photo that the prompt asks about. A
    prompt that holds the subject itself becomes one with "{}" where ``subject_place`` finds it. ``join`` is what is
    between prompt and target, by default what ``joined`` says, or where spelling leaves that open what the edited model
    finds likelier; ``answer`` is the target with it. ``chat`` asks in the
    model's chat template, behind the ``system`` text if there is one; a photo is always asked so. Raises
    ``PromptError`` for a prompt without a place for its subject (or the subject itself) and for a system text without
    ``chat``, ``TargetError`` for an empty target.
    """

    prompt: str
    subject: str
    target_new: str
    target_true: str | None = None
    image: str | None = None
    join: str | None = None
    chat: bool = False
    system: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "subject", "target_new"):
            if not isinstance(getattr(self, name), str):
                raise PromptError(f"The {name} of a fact is a text, not {getattr(self, name)!r:.80}.")
        if type(self.chat) is not bool or type(self.system) not in (str, type(None)):
            raise PromptError("chat of a fact is True or False, and its system text is a text.")
        if self.system is not None and not self.chat:
            raise PromptError("A system text belongs to a chat: Fact(..., chat=True, system=...).")
        if self.chat and self.image is not None:
            raise PromptError("A photo is asked in the model's chat template already; leave chat and system out.")
        if not self.subject.strip():
            raise PromptError("The subject of a fact is empty.")
        if "{}" not in self.prompt:
            prompt = templated(self.prompt, self.subject)
            if prompt is None:
                raise PromptError(f"The prompt {self.prompt!r} has no place {{}} for its subject {self.subject!r}.")
            object.__setattr__(self, "prompt", prompt)
        if self.prompt.count("{}") > 1:
            raise PromptError(f"The prompt {self.prompt!r} has several places {{}}; a fact has one subject.")
        if not self.target_new.strip():
            raise TargetError("The new target of a fact is empty.")

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        return self.prompt.replace("{}", self.subject)

    @property
    def answer(self) -> str:
        """The new target as it follows the prompt by ``joined``; see ``answers.request.taught`` for a model's."""
        return joined("" if self.image else self.text, self.target_new, self.join)


@dataclass(frozen=True)
class Probe:
    """A question beside a fact; ``answers`` are all that count as right (none: whatever the model answers unedited).

    ``image`` is the path of the photo that it asks about (None: text alone).
    """

    prompt: str
    answers: tuple[str, ...] = ()
    image: str | None = None


@dataclass(frozen=True)
class FactCase:
    """A fact and the questions that measure an edit of it.

    ``paraphrases`` should get the new target. ``portability`` holds questions whose answer follows from the edit, by
    the kinds of ``PORTABILITY`` (``image_generality``: the same question about another photo of the same thing).
    ``locality`` holds questions whose answer should stay, by the kinds of ``LOCALITY``: the same subject in another
    relation, further answers of a relation with several, other subjects in the same relation, other subjects whose
    true answer is the new target, something unrelated, and an unrelated question about another photo. ``generation``
    are openings for the model to continue, to measure fluency. ``also`` are facts that are edited together with
    ``fact``, as where a question of several hops follows from all of them.
    """

    id: str
    fact: Fact
    paraphrases: tuple[str, ...] = ()
    portability: Mapping[str, tuple[Probe, ...]] = field(default_factory=dict)
    locality: Mapping[str, tuple[Probe, ...]] = field(default_factory=dict)
    generation: tuple[str, ...] = ()
    also: tuple[Fact, ...] = ()

    @property
    def facts(self) -> tuple[Fact, ...]:
        """All facts that an edit of this case makes."""
        return (self.fact, *self.also)
