"""A model's answers to the questions of a case, as it is now: teacher-forced and in free generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NotRequired, TypedDict

from neuronwise.answers.forced import Reading, read_forced
from neuronwise.answers.free import continued, sampled
from neuronwise.answers.protocols.table import Protocol
from neuronwise.answers.questions import OWN, Question
from neuronwise.answers.request import followed, joins, laid_out, target_ids
from neuronwise.files.kinds import misfits
from neuronwise.model.model import Model
from neuronwise.model.prompt import Prompted

BEYOND = 3  # tokens generated beyond the longest answer
LENGTH = 100  # tokens that a model generates for its fluency; as released, with the prompt
TOP_K = 5  # likeliest tokens, among which the released protocol draws
OWN_TOKENS = 5  # length of the model's own answer where a probe has none


@dataclass(frozen=True)
class Answered:
    """One question with the readings of its answers (by their text) and the free continuation, if it was asked for."""

    question: Question
    readings: Mapping[str, Reading]
    text: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        readings = [[answer, *asdict(reading).values()] for answer, reading in self.readings.items()]
        return {"question": asdict(self.question), "readings": readings, "text": self.text}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Answered:
        """The inverse of ``to_dict``; raises ``TypeError`` for anything else."""
        if wrong := misfits(content, _Saved):
            raise TypeError(f"of an answer {wrong}")
        question = Question(**{**content["question"], "answers": tuple(content["question"]["answers"])})
        readings = {answer: Reading(tuple(ids), tuple(best), p) for answer, ids, best, p in content["readings"]}
        for answer in question.read:
            if answer not in readings and answer != OWN:
                raise TypeError(f"there is no reading of the answer {answer!r}")
        if any(not one.ids or len(one.ids) != len(one.best) for one in readings.values()):
            raise TypeError("a reading has no tokens, or not one beside each")
        return cls(question, readings, content["text"])


class _Asked(TypedDict):
    part: str
    prompt: str
    answers: list[str]
    new: str | None
    old: str | None
    image: str | None
    join: NotRequired[str | None]
    chat: NotRequired[bool]
    system: NotRequired[str | None]


class _Saved(TypedDict):
    """What ``Answered.to_dict`` gives; a reading is its answer, ids, best, and log probability."""

    question: _Asked
    readings: list[tuple[str, list[int], list[int], float]]
    text: str | None


def ask(
    model: Model, questions: Sequence[Question], before: Sequence[Answered] | None = None, *, free: bool = True
) -> list[Answered]:
    """Answers of the model as it is now, to each question in order.

    A question without answers is measured on the model's own: what it says now, or what it said ``before``. With
    ``free=False`` nothing is generated beyond that.
    """
    asked_as = _laid_out(model, questions)
    inputs = [prompted.inputs for prompted in asked_as]
    ids = _answer_ids(model, questions, asked_as, before)
    texts: list[str | None] = [None] * len(questions)
    own = [before is None and OWN in question.read for question in questions]
    asked = [index for index in range(len(questions)) if free or own[index]]
    given = [[len(tokens) + BEYOND for answer, tokens in one.items() if answer != OWN] for one in ids]
    lengths = [max([OWN_TOKENS, *given[index]]) for index in asked]
    for index, said in zip(asked, continued(model, [inputs[i] for i in asked], lengths), strict=True):
        if free:
            texts[index] = model.decode_ids(said)
        if own[index]:
            ids[index][OWN] = said[:OWN_TOKENS]
    pairs = [(index, answer) for index, question in enumerate(questions) for answer in question.read]
    pairs = [(index, answer) for index, answer in pairs if ids[index].get(answer)]  # a silent model has no own answer
    readings = read_forced(model, [(inputs[index], ids[index][answer]) for index, answer in pairs])
    found: list[dict[str, Reading]] = [{} for _ in questions]
    for (index, answer), reading in zip(pairs, readings, strict=True):
        found[index][answer] = reading
    return [Answered(*parts) for parts in zip(questions, found, texts, strict=True)]


def _answer_ids(
    model: Model, questions: Sequence[Question], asked_as: Sequence[Prompted], before: Sequence[Answered] | None
) -> list[dict[str, list[int]]]:
    """Of each question the tokens of its answers: those that were read ``before``, where they were."""
    known: list[dict[str, list[int]]] = [{} for _ in questions]
    for index, answered in enumerate(before or ()):
        known[index] = {answer: list(reading.ids) for answer, reading in answered.readings.items()}
    rest = [(index, one) for index, q in enumerate(questions) for one in q.read if one not in {OWN, *known[index]}]
    said = joins(model, [(asked_as[index], one, questions[index].join) for index, one in rest])
    for (index, one), join in zip(rest, said, strict=True):
        known[index][one] = target_ids(model, one, followed(model, asked_as[index]), join)
    return known


def long_texts(model: Model, beginnings: Sequence[Question]) -> tuple[str, ...]:
    """What the model goes on to say for ``LENGTH`` tokens, for its fluency."""
    inputs = [prompted.inputs for prompted in _laid_out(model, beginnings)]
    said = continued(model, inputs, [LENGTH] * len(beginnings), least=True)
    return tuple(model.decode_ids(ids) for ids in said)


def protocol_texts(model: Model, questions: Sequence[Question], protocol: Protocol) -> tuple[str, ...]:
    """What the model says, by a protocol, to those of the questions that it asks, in order."""
    asked = [
        replace(question, prompt=protocol.prompt.replace("{}", question.prompt))
        for question in questions
        if protocol.asks(question)
    ]
    inputs = [prompted.inputs for prompted in _laid_out(model, asked)]
    said = continued(model, inputs, [protocol.length] * len(asked))
    return tuple(protocol.heard(model.decode_ids(ids)) for ids in said)


def sampled_texts(model: Model, beginnings: Sequence[Question], seed: int = 0) -> tuple[str, ...]:
    """Texts of ``LENGTH`` tokens with their beginnings, drawn as in the released code of [ROME]; of text alone."""
    of_text = [beginning for beginning in beginnings if beginning.image is None]
    inputs = [prompted.inputs for prompted in _laid_out(model, of_text)]
    drawn = sampled(model, inputs, LENGTH, TOP_K, seed)
    return tuple(model.tokenizer.decode(ids, skip_special_tokens=True) for ids in drawn)


def _laid_out(model: Model, questions: Sequence[Question]) -> list[Prompted]:
    """Each question as the editors ask it, see ``request.laid_out``."""
    keys = [(q.prompt, q.image, q.chat, q.system) for q in questions]
    known = {
        (prompt, image, chat, system): laid_out(model, prompt, image, chat=chat, system=system)[0]
        for prompt, image, chat, system in dict.fromkeys(keys)
    }
    return [known[key] for key in keys]
