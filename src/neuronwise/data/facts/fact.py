"""Facts: what an edit is asked to change, and the questions that measure it, as plain records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from neuronwise.errors import PromptError, TargetError

PORTABILITY = ("subject_aliasing", "reasoning", "logical_generalization", "image_generality")
LOCALITY = ("relation_specificity", "forgetfulness", "neighborhood", "attribute", "unrelated", "unrelated_image")


@dataclass(frozen=True)
class Fact:
    """One request: ``prompt`` with "{}" in place of the subject, and the answer that it should get.

    ``text`` is the prompt with the subject filled in; ``image`` is the path of a photo that the prompt asks about.
    Raises ``PromptError`` for a prompt without a place for its subject (or the subject itself) and ``TargetError`` for
    an empty target.
    """

    prompt: str
    subject: str
    target_new: str
    target_true: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "subject", "target_new"):
            if not isinstance(getattr(self, name), str):
                raise PromptError(f"The {name} of a fact is a text, not {getattr(self, name)!r:.80}.")
        if not self.subject.strip():
            raise PromptError("The subject of a fact is empty.")
        if "{}" not in self.prompt and self.subject not in self.prompt:
            raise PromptError(f"The prompt {self.prompt!r} has no place {{}} for its subject {self.subject!r}.")
        if self.prompt.count("{}") > 1:
            raise PromptError(f"The prompt {self.prompt!r} has several places {{}}; a fact has one subject.")
        if not self.target_new.strip():
            raise TargetError("The new target of a fact is empty.")

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        return self.prompt.replace("{}", self.subject)


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
    are openings for the model to continue, to measure fluency.
    """

    id: str
    fact: Fact
    paraphrases: tuple[str, ...] = ()
    portability: Mapping[str, tuple[Probe, ...]] = field(default_factory=lambda: MappingProxyType({}))
    locality: Mapping[str, tuple[Probe, ...]] = field(default_factory=lambda: MappingProxyType({}))
    generation: tuple[str, ...] = ()
