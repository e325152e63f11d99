"""What a case asks a model: one question for each prompt, with the answers that are read beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from neuronwise.answers.modalities import asked
from neuronwise.data.facts import Fact, FactCase

SUCCESS, GENERALITY, OTHERS = "success", "generality", "others"
BEGINNINGS = 3  # of those that a case names, at most: each is 100 tokens to generate
OWN = ""  # key of the model's own answer before the edit, where a probe has none


@dataclass(frozen=True)
class Question:
    """``part`` says what the answer is measured for, such as "success" or "locality_neighborhood".

    ``answers`` are those that count; ``new`` and ``old``, where they matter, are the fact's targets. ``image`` is a
    photo's path; without one the prompt is read without a chat template, unless ``chat`` asks in one, behind the
    ``system`` text. ``join`` is the fact's.
    """

    part: str
    prompt: str
    answers: tuple[str, ...] = ()
    new: str | None = None
    old: str | None = None
    image: str | None = None
    join: str | None = None
    chat: bool = False
    system: str | None = None

    @property
    def read(self) -> tuple[str, ...]:
        """All answers that are teacher-forced, each once."""
        targets = tuple(target for target in (self.new, self.old) if target)
        return tuple(dict.fromkeys((self.answers or (OWN,)) + targets))


def questions_of(case: FactCase) -> tuple[Question, ...]:
    """All questions of a case: the request, its paraphrases, what follows from it and what should stay.

    A request with a photo is also asked by its text alone and by its photo alone ("success_text", "success_image").
    Of a locality probe the first answer is forced, or the model's own where it has none. All questions without a photo
    are asked in a chat where the fact is.
    """
    return tuple(_as_asked(question, case.fact) for question in _questions(case))


def _as_asked(question: Question, fact: Fact) -> Question:
    """The question in the fact's form: in a chat with its system text, or as it is."""
    return replace(question, chat=fact.chat, system=fact.system) if question.image is None else question


def _questions(case: FactCase) -> tuple[Question, ...]:
    fact = case.fact
    new, old = fact.target_new, fact.target_true
    found = [
        Question(SUCCESS, one.text, (one.target_new,), one.target_new, one.target_true, one.image, one.join)
        for one in case.facts
    ]
    found += [Question(GENERALITY, prompt, (new,), new, old, fact.image, fact.join) for prompt in case.paraphrases]
    if fact.image is not None:
        ways = {f"{SUCCESS}_{modality}": asked(fact, modality) for modality in ("text", "image")}
        found += [Question(part, way.text, (new,), new, old, way.image) for part, way in ways.items()]
    for kind, probes in case.portability.items():
        part = f"portability_{kind}"
        found += [Question(part, probe.prompt, probe.answers, image=probe.image) for probe in probes if probe.answers]
    for kind, probes in case.locality.items():
        beside = (new if kind in ("relation_specificity", "neighborhood") else None,)
        beside += (old if kind == "neighborhood" else None,)
        part = f"locality_{kind}"
        found += [Question(part, probe.prompt, probe.answers[:1], *beside, probe.image) for probe in probes]
    return tuple(found)


def beginnings_of(case: FactCase, most: int | None = BEGINNINGS) -> tuple[Question, ...]:
    """What the model writes on from to measure its fluency: the case's first beginnings, else its request."""
    if not case.generation:
        return (_as_asked(Question("fluency", case.fact.text, image=case.fact.image), case.fact),)
    return tuple(Question("fluency", prompt) for prompt in case.generation[:most])


def others_of(facts: Iterable[Fact]) -> tuple[Question, ...]:
    """Questions about facts that an edit of another must leave alone."""
    return tuple(
        _as_asked(Question(OTHERS, fact.text, (fact.target_true,) if fact.target_true else (), image=fact.image), fact)
        for fact in facts
    )
