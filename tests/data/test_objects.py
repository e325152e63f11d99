"""Plain words for what is on a photo."""

import pytest

from neuronwise.data.imagenet import imagenet_parents, names_class
from neuronwise.data.objects import COCO_CATEGORIES, COCO_SYNONYMS, objects_named, plural


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Two women and a dog on a couch.", {"person", "dog", "couch"}),
        ("A man eating a hot dog.", {"person", "hot dog"}),
        ("Teddy bears on a bed", {"teddy bear", "bed"}),
        ("A couple of bananas.", {"banana"}),
        ("A couple walks their puppies.", {"person", "dog"}),
        ("A baseball player swings a bat.", {"person", "baseball bat"}),
        ("A baseball field.", set()),
        ("An orange cat and an orange on a table.", {"cat", "orange", "dining table"}),
        ("A train station with a clock tower.", {"clock"}),
        ("A double-decker bus.", {"bus"}),
        ("Knives, sheep, mice and geese", {"knife", "sheep", "mouse", "bird"}),
        ("The cathedral of concatenation.", set()),
        ("", set()),
    ],
)
def test_objects_named(caption: str, expected: set[str]) -> None:
    assert objects_named(caption) == expected


def test_every_category_is_named_by_its_own_words() -> None:
    assert len(COCO_CATEGORIES) == 80
    for category, words in COCO_SYNONYMS.items():
        for word in words:
            assert objects_named(f"There is a {word}.") == {category}
            assert objects_named(f"Many {plural(word)}!") == {category}


@pytest.mark.parametrize(("word", "many"), [("dog", "dogs"), ("bus", "buses"), ("pony", "ponies")])
def test_plural(word: str, many: str) -> None:
    assert plural(word) == many


@pytest.mark.parametrize(
    ("index", "first"),
    [(151, "dog"), (268, "dog"), (281, "cat"), (291, "lion"), (779, "bus"), (963, "pizza"), (97, "duck")],
)
def test_closest_parent_comes_first(index: int, first: str) -> None:
    assert imagenet_parents(index)[0] == first


def test_broad_words_come_last_and_on_request() -> None:
    assert imagenet_parents(341) == ("pig",)
    assert imagenet_parents(341, broad=True) == ("pig", "animal")
    with pytest.raises(ValueError, match="0 to 999"):
        imagenet_parents(1000)


def test_a_class_is_named_by_itself_or_a_close_parent() -> None:
    assert names_class("A golden retriever in the snow.", 207, "golden retriever")
    assert names_class("Two dogs in the snow.", 207, "golden retriever")
    assert not names_class("An animal in the snow.", 207, "golden retriever")
    assert not names_class("A hotdog.", 207, "golden retriever")
