"""The texts by which a neuron is explained: those on which it fires most and others, shown or held out."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from neuronwise.errors import IndexingError
from neuronwise.index.entry import Example
from neuronwise.index.index import Index
from neuronwise.index.items import Item
from neuronwise.neurons import Neuron

LEAST = 4  # texts on which a neuron fires: two are shown and two held out
BEFORE, AFTER = 16, 8  # tokens of a text around the one on which the neuron fires


@dataclass(frozen=True)
class Case:
    """A text, and the same with the token marked on which the neuron fires."""

    text: str
    marked: str


@dataclass(frozen=True)
class Cases:
    """Texts on which a neuron fires most, and others, drawn at random: the ``shown`` ones and those that are ``held``
    out."""

    shown: Sequence[Case]
    shown_others: Sequence[Case]
    held: Sequence[Case]
    held_others: Sequence[Case]


def cases_of(index: Index, kinds: Sequence[str], neuron: Neuron, place: str, lowest: bool, seed: int) -> Cases:
    """The cases of a neuron; ``kinds`` are those of the index's items.

    It fires on the items that are kept of it in a known order and with the sign asked for, on at most half of all that
    have the place; every other one is held out. As many of the rest are drawn. Raises ``IndexingError`` where there are
    too few.
    """
    draw = random.Random(f"{neuron} {place} {lowest} {seed}")
    there = [number for number, kind in enumerate(kinds) if kind == "photo" or place != "image"]
    entry = index[neuron].at(place)
    kept = (entry.bottom if lowest else entry.top)(len(kinds))
    sign = -1 if lowest else 1
    known = [one for one in kept if one.value * sign > 0 and one.value != kept[-1].value][: len(there) // 2]
    firing = list({case.text: case for case in (_of_example(one) for one in known)}.values())
    if len(firing) < LEAST:
        raise IndexingError(f"{neuron} fires on {len(firing)} different texts of this index; a label takes {LEAST}.")
    numbers = {one.item.number for one in known}
    others: dict[str, Case] = {}
    rest = [number for number in there if number not in numbers]
    for number in draw.sample(rest, len(rest)):
        case = _of_item(index.items[number], place, draw)
        if case.text not in {one.text for one in firing}:
            others[case.text] = case
        if len(others) == len(firing):
            break
    drawn = list(others.values())
    if len(drawn) < LEAST:
        raise IndexingError(f"This index has {len(drawn)} different texts beside those on which {neuron} fires most.")
    return Cases(firing[::2], drawn[::2], firing[1::2], drawn[1::2])


def _of_example(example: Example) -> Case:
    if example.item.kind == "photo":
        return _captioned(example.item, example.place)
    return _around(example.item, example.position)


def _of_item(item: Item, place: str, draw: random.Random) -> Case:
    """Of a text that is longer than shown, a part drawn at random: no length and no end gives an answer away."""
    if item.kind == "photo":
        return _captioned(item, place)
    return _around(item, draw.randrange(len(item.tokens)))


def _captioned(item: Item, place: str) -> Case:
    """What a photo shows is said best by a reference caption; what the model said, by its own."""
    text = _plain(item.captions[0] if item.captions and place == "image" else item.text)
    return Case(text, text)


def _around(item: Item, position: int) -> Case:
    before = "".join(item.tokens[max(0, position - BEFORE) : position])
    after = "".join(item.tokens[position + 1 : position + 1 + AFTER])
    token = item.tokens[position]
    return Case(_plain(before + token + after), _plain(f"{before} << {token.strip()} >> {after}"))


def _plain(text: str) -> str:
    """On one line, without the marks that a tokenizer writes."""
    return " ".join(re.sub(r"<\|?[\w/]*\|?>", " ", text).split())
