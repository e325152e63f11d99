"""POPE's questions: what is asked, and how absent objects are chosen."""

from __future__ import annotations

from pathlib import Path

from neuronwise.data.photos import Captioned, SeenObject
from neuronwise.data.photos.pope import object_questions


def photo(name: str, *categories: str, captions: tuple[str, ...] = ()) -> Captioned:
    return Captioned(name, Path(f"{name}.jpg"), captions, tuple(SeenObject(one, None) for one in categories))


PHOTOS = [
    photo("a", "dog", "car", "person"),
    photo("b", "dog", "frisbee"),
    photo("c", "dog", "frisbee", "person"),
    photo("d", "car", "person"),
    photo("e", "car", "person", captions=("a man with a puppy",)),
    photo("f", "cat", "couch"),
]


def test_as_many_objects_are_absent_as_there_are_and_none_is_asked_for_twice() -> None:
    asked = object_questions(PHOTOS, 2)
    for one in PHOTOS:
        own = [question for question in asked if question.photo == one.id]
        assert len({question.category for question in own}) == len(own) == 8
        assert [question.category in one.categories() for question in own] == [question.present for question in own]
        kinds = [question.negatives for question in own]
        assert [kinds.count(kind) for kind in (None, "random", "popular", "adversarial")] == [2, 2, 2, 2]
    assert object_questions(PHOTOS, 2) == asked
    assert object_questions(PHOTOS, 2, seed=1) != asked


def test_absent_objects_are_the_most_popular_and_those_that_go_with_what_is_there() -> None:
    popular = object_questions(PHOTOS, 1, ["popular"])
    absent = {question.photo: question.category for question in popular if not question.present}
    assert absent["f"] == "person"  # four photos show one
    assert absent["b"] == "person"
    assert absent["d"] == "dog"
    assert absent["e"] != "dog"  # a reference caption has one, as a puppy
    for question in object_questions([photo("g", "dog"), *PHOTOS], 1, ["adversarial"])[:2]:
        assert question.category in ("dog", "frisbee", "person")  # both were seen with dogs twice
    only = object_questions([photo("g", "couch"), *PHOTOS], 1, ["adversarial"])
    assert only[1].category == "cat"


def test_questions_are_worded_with_the_article() -> None:
    assert object_questions([photo("a", "dog")], 1, ["random"])[0].prompt == "Is there a dog in the image?"
    assert object_questions([photo("a", "airplane")], 1)[0].prompt == "Is there an airplane in the image?"
    assert object_questions([Captioned("a", Path("a"), ("a dog",)), photo("b")], 1) == []
