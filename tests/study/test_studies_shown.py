"""Which photos show a concept, by which word a caption names it, and where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neuronwise.data.photos import Captioned, SeenObject
from neuronwise.errors import ImageError
from neuronwise.study.concept_photos import lacks, object_mask, shows, word_for


@pytest.mark.parametrize(
    ("caption", "concept", "word"),
    [
        ("Two puppies on a sofa.", "dog", "puppies"),
        ("A hot dog beside a Dog.", "dog", "Dog"),
        ("A man and a woman", "person", "man"),
        ("A semi-truck, and a tow-truck", "truck", "semi-truck"),
        ("The fire hydrant is red", "fire hydrant", "fire hydrant"),
        ("Clouds in the sky", "sky", "sky"),
    ],
)
def test_the_word_of_a_caption(caption: str, concept: str, word: str) -> None:
    assert word_for(caption, concept) == word


def photo(captions: tuple[str, ...], objects: tuple[Any, ...] | None) -> Captioned:
    return Captioned("a", Path("a.png"), captions, objects)


def test_annotations_stand_before_references() -> None:
    dog = (SeenObject("dog", None),)
    assert shows(photo((), dog), "dog")
    assert not shows(photo(("a dog",), ()), "dog")  # annotated, and no dog was seen
    assert shows(photo(("a puppy",), None), "dog")  # nobody annotated
    assert not shows(photo(("a cat",), None), "dog")
    assert shows(photo((), None), "dog")  # nothing is known: the caption is believed
    assert shows(photo(("a mat",), dog), "mat")  # no category of COCO, so no annotation could tell


def test_nothing_may_speak_for_the_concept() -> None:
    assert lacks(photo(("a cat",), (SeenObject("cat", None),)), "a mat", "dog")
    assert not lacks(photo(("a cat",), (SeenObject("dog", None),)), "a mat", "dog")
    assert not lacks(photo(("a puppy",), ()), "a mat", "dog")
    assert not lacks(photo(("a cat",), ()), "a puppy", "dog")


def test_all_objects_of_the_concept_are_masked(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    squares = [[[0, 0, 4, 0, 4, 4, 0, 4]], [[10, 2, 14, 2, 14, 6, 10, 6]], [[15, 0, 19, 0, 19, 4, 15, 4]]]
    objects = (
        SeenObject("dog", squares[0]), SeenObject("dog", squares[1]), SeenObject("cat", squares[2]),
        SeenObject("dog", [[50, 50, 60, 50, 60, 60]]), SeenObject("dog", None),
    )  # fmt: skip
    mask = object_mask(Captioned("a", tmp_path / "a.png", (), objects), "dog")
    expected = np.zeros((10, 20), bool)
    expected[0:4, 0:4] = expected[2:6, 10:14] = True
    assert (mask == expected).all()
    with pytest.raises(ImageError, match=r"no usable mask of 'dog' .*outside"):
        object_mask(Captioned("a", tmp_path / "a.png", (), objects[3:]), "dog")
