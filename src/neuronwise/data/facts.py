"""Facts: what an edit is asked to change, as plain records."""

from __future__ import annotations

from dataclasses import dataclass

from neuronwise.errors import PromptError, TargetError


@dataclass(frozen=True)
class Fact:
    """One request: ``prompt`` with "{}" where the subject stands, and the answer it shall get.

    ``text`` is the prompt with the subject filled in. Raises ``PromptError`` for a prompt without a place for its
    subject (or the subject itself) and ``TargetError`` for an empty target.
    """

    prompt: str
    subject: str
    target_new: str
    target_true: str | None = None

    def __post_init__(self) -> None:
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
        return self.prompt.replace("{}", self.subject)
