"""The plain words of ImageNet's classes, which the built-in model's training answers with."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def imagenet(training: Any) -> Any:
    return training("imagenet")


@pytest.mark.parametrize(
    ("index", "first"),
    [(151, "dog"), (268, "dog"), (281, "cat"), (291, "lion"), (779, "bus"), (963, "pizza"), (97, "duck")],
)
def test_closest_parent_comes_first(imagenet: Any, index: int, first: str) -> None:
    assert imagenet.imagenet_parents(index)[0] == first


def test_broad_words_come_last_and_on_request(imagenet: Any) -> None:
    assert imagenet.imagenet_parents(341) == ("pig",)
    assert imagenet.imagenet_parents(341, broad=True) == ("pig", "animal")
    with pytest.raises(ValueError, match="0 to 999"):
        imagenet.imagenet_parents(1000)


def test_a_class_is_named_by_itself_or_a_close_parent(imagenet: Any) -> None:
    assert imagenet.names_class("A golden retriever in the snow.", 207, "golden retriever")
    assert imagenet.names_class("Two dogs in the snow.", 207, "golden retriever")
    assert not imagenet.names_class("An animal in the snow.", 207, "golden retriever")
    assert not imagenet.names_class("A hotdog.", 207, "golden retriever")
