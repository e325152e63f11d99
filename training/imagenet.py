"""Parents of ImageNet's 1000 classes in plain words: what a caption may say instead of "golden retriever".

The list, ``imagenet_parents.tsv``, is this project's own: a word and the classes that it is a parent of (ranges include
both ends; the index order is taxonomic for animals). "broad" marks words that say nothing which a photo's class does
not share with dozens of others.
"""

import csv
import functools
import pathlib

from neuronwise.answers.naming import names


@functools.cache
def _parents() -> dict[str, tuple[frozenset[int], bool]]:
    with (pathlib.Path(__file__).parent / "imagenet_parents.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["word"]: (_indices(row["classes"]), row["broad"] == "broad") for row in rows}


def _indices(ranges: str) -> frozenset[int]:
    found: set[int] = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


@functools.cache
def imagenet_parents(index: int, broad: bool = False) -> tuple[str, ...]:
    """The plain words that are close parents of ImageNet class ``index`` (0–999), the closest first.

    With ``broad``, words such as "animal" or "furniture" follow. Classes without a plain parent give an empty tuple.
    """
    if not 0 <= index < 1000:
        raise ValueError(f"ImageNet has the classes 0 to 999, not {index}.")
    words = [(word, wide) for word, (classes, wide) in _parents().items() if index in classes]
    close = tuple(word for word, wide in words if not wide)
    return close + tuple(word for word, wide in words if wide) if broad else close


def names_class(caption: str, index: int, name: str) -> bool:
    """Whether a caption names ImageNet class ``index``, by its ``name`` or by a close parent."""
    return any(names(caption, word) for word in (name, *imagenet_parents(index)))
