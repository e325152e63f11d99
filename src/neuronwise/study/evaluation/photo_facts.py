"""Facts about annotated photos, for edits that are made and asked with a photo and without."""

from __future__ import annotations

import random
from collections.abc import Iterator

from pydantic import BaseModel, field_validator

from neuronwise.answers.naming import names
from neuronwise.data.facts import Fact, FactCase, Facts
from neuronwise.data.facts.rows import Problem
from neuronwise.data.photos import Captioned, Photos
from neuronwise.data.words import COCO_KINDS, PERSON
from neuronwise.errors import NothingToStudy
from neuronwise.study.recipe_fields import STRICT, Text, once


class PhotoFacts(BaseModel):
    """One fact for each photo that shows an object which one of its reference captions names.

    ``prompt`` holds {} in place of the object's category (not a person). ``answers`` are the new targets in turn, each
    where it is not what the object is a kind of. ``part``: of COCO, such as "val2017".
    """

    model_config = STRICT
    prompt: Text
    answers: list[Text]
    part: Text | None = None

    _answers = field_validator("answers")(once)

    @field_validator("prompt")
    @classmethod
    def _with_place(cls, prompt: str) -> str:
        if prompt.count("{}") != 1:
            raise ValueError("it needs one {}, the place of the object")
        return prompt

    def of(self, photos: Photos, seed: int) -> Facts:
        """The facts; which object of a photo is drawn by the seed. Raises ``NothingToStudy`` where no photo has one."""
        cases = tuple(self.cases(photos, seed))
        if not cases:
            raise NothingToStudy(
                f"No photo of {photos.source} shows an annotated object that a reference caption names."
            )
        problems = tuple(Problem(photos.source, text) for text in photos.problems)
        return Facts(cases, problems, "photos", photos.source, photos.digest)

    def cases(self, photos: Photos, seed: int) -> Iterator[FactCase]:
        """The facts, one by one."""
        number = 0
        for photo in photos:
            there = sorted(_objects(photo))
            if there:
                subject = random.Random(f"{seed}/{photo.id}").choice(there)
                turned = self.answers[number % len(self.answers) :] + self.answers
                answer = next((one for one in turned if one != COCO_KINDS.get(subject)), None)
                if answer is not None:
                    yield FactCase(photo.id, Fact(self.prompt, subject, answer, image=str(photo.path)))
                    number += 1


def _objects(photo: Captioned) -> set[str]:
    return {name for name in photo.categories() - {PERSON} if any(names(text, name) for text in photo.captions)}
