"""Does this text name that word? The rule of docs/naming.md, case by case."""

from __future__ import annotations

import pytest

from neuronwise.answers.naming import mentions, names, objects_named, swapped
from neuronwise.data.words import COCO_CATEGORIES, COCO_SYNONYMS, plural

NAMED = [
    ("A dog.", "dog"), ("DOGS!", "dog"), ("A dog", "Dogs"), ("A puppy plays.", "dog"), ("Two puppies play.", "dog"),
    ("A golden retriever.", "dog"), ("A pit bull.", "dog"), ("A man.", "person"), ("Two women", "person"),
    ("A couple walks.", "person"), ("People", "person"), ("A baseball player", "person"), ("geese", "bird"),
    ("Knives", "knife"), ("mice", "mouse"), ("sheep", "sheep"), ("a pair of scissors", "scissors"), ("skis", "skis"),
    ("Hot dogs", "hot dog"), ("a hot-dog stand", "hot dog"), ("a hotdog", "hot dog"), ("Teddy  bears", "teddy bear"),
    ("a stuffed animal", "teddy bear"), ("a phone", "cell phone"), ("a racquet", "tennis racket"),
    ("a ball", "sports ball"), ("a hair dryer", "hair drier"), ("a plant", "potted plant"), ("a table", "dining table"),
    ("a hydrant", "fire hydrant"), ("a stoplight", "traffic light"), ("a mitt", "baseball glove"),
    ("a hot dog for the dog", "dog"), ("The dog's bowl", "dog"), ("the dogs’ bowl", "dog"), ("dog--a big one", "dog"),
    ("dog—a big one", "dog"), ("a dog/cat", "dog"), ("“dog”", "dog"), ("a polar bear", "bear"), ("an orange", "orange"),
    ("orange and apple", "orange"), ("a double-decker bus", "bus"), ("a semi-truck", "truck"),
    # words of a list that are no category: by themselves, in what belongs to their category too
    ("Two puppies", "puppy"), ("a baseball bat", "bat"), ("a dining table", "table"), ("a cell phone", "phone"),
    ("two men", "man"), ("a man", "men"), ("children", "child"), ("a goose", "geese"), ("people", "person"),
    # any other word
    ("The lighthouse is tall.", "lighthouse"), ("Lighthouses", "lighthouse"), ("the Eiffel Tower", "eiffel tower"),
    ("T-shirts", "t-shirt"), ("a t shirt", "T-shirt"), ("leaves", "leaf"), ("feet", "foot"), ("buses", " bus "),
    ("boxes", "box"), ("octopuses", "octopus"), ("a tie", "ties"), ("the news", "news"), ("a wine glass", "glass"),
    ("a traffic light", "light"), ("golden retrievers", "golden retriever"), ("一只狗在长椅上", "狗"),
]  # fmt: skip
NOT_NAMED = [
    ("A hot dog on a plate.", "dog"), ("Hot-dogs", "dog"), ("a corn dog", "dog"), ("A teddy bear", "bear"),
    ("Teddy bears", "bears"), ("a gummy bear", "bear"), ("A dog-like creature.", "dog"), ("a dog-friendly café", "dog"),
    ("a man-made lake", "person"), ("a non-dog", "dog"), ("Dogma", "dog"), ("A cathedral of concatenation", "cat"),
    ("A woman", "man"), ("A dog", "puppy"), ("A kitten", "puppy"), ("a couple of bananas", "person"),
    ("A baseball bat", "sports ball"), ("a baseball glove", "baseball bat"), ("a baseball field", "sports ball"),
    ("a tennis ball", "tennis racket"), ("a computer mouse", "laptop"), ("a toilet seat", "chair"),
    ("a train station", "train"), ("a pit bull", "cow"), ("An orange cat", "orange"), ("orange juice", "orange"),
    ("An orange-and-white cat", "orange"), ("three o'clock", "clock"), ("a wine bottle", "wine glass"),
    ("a baseball bat", "baseball"), ("a hot dog", "puppy"), ("a toilet seat", "seat"), ("a bow tie", "bow and arrow"),
    ("The house is tall.", "lighthouse"), ("a new car", "news"), ("a t-shirt-like top", "t-shirt"), ("", "dog"),
    ("a dog", ""), ("a dog", " "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "word"), NAMED)
def test_named(text: str, word: str) -> None:
    assert names(text, word)


@pytest.mark.parametrize(("text", "word"), NOT_NAMED)
def test_not_named(text: str, word: str) -> None:
    assert not names(text, word)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two women and a dog on a couch.", {"person", "dog", "couch"}),
        ("A man eating a hot dog.", {"person", "hot dog"}),
        ("Teddy bears on a bed", {"teddy bear", "bed"}),
        ("An orange cat and an orange on a table.", {"cat", "orange", "dining table"}),
        ("A train station with a clock tower.", {"clock"}),
        ("A baseball player swings a bat.", {"person", "baseball bat"}),
        ("", set()),
    ],
)
def test_objects_named(text: str, expected: set[str]) -> None:
    assert objects_named(text) == expected


def test_every_category_is_named_by_its_own_words_alone() -> None:
    assert len(COCO_CATEGORIES) == 80
    for category, words in COCO_SYNONYMS.items():
        for word in words:
            for text in (f"There is a {word}.", f"MANY {plural(word).upper()}!"):
                assert objects_named(text) == {category}
                assert names(text, category)


def test_mentions_are_places_in_the_text_as_it_is_written() -> None:
    text = "Puppies’ bowl, a Hot-Dog and a man."
    assert [(m.text, m.category) for m in mentions(text)] == [
        ("Puppies", "dog"), ("bowl", "bowl"), ("Hot-Dog", "hot dog"), ("man", "person"),
    ]  # fmt: skip
    assert all(text[m.start : m.end] == m.text for m in mentions(text))
    assert [m.text for m in mentions("Lighthouses and a lighthouse", "lighthouse")] == ["Lighthouses", "lighthouse"]


@pytest.mark.parametrize(
    ("text", "source", "target", "expected"),
    [
        ("A cat on a mat.", "dog", "cat", True), ("A cat and a puppy.", "dog", "cat", False),
        ("A dog.", "dog", "cat", False), ("A puppy.", "dog", "puppy", True), ("A puppy, a dog.", "dog", "puppy", False),
        ("A man.", "man", "person", False), ("A person.", "man", "person", True), ("Hot dog", "dog", "hot dog", True),
    ],
)  # fmt: skip
def test_swapped(text: str, source: str, target: str, expected: bool) -> None:
    assert swapped(text, source, target) is expected


@pytest.mark.parametrize(("word", "many"), [("dog", "dogs"), ("bus", "buses"), ("pony", "ponies"), ("toy", "toys")])
def test_plural(word: str, many: str) -> None:
    assert plural(word) == many
