"""Do early neurons read better through the later layers? What they raise, along both ways, by third of the layers.

    python benchmarks/early_neurons.py --out early-neurons

Each of 16 texts asks for one noun. Of every third of the layers the neurons with the largest gradient × activation for
the noun (contrast=10), which depends on no reading, are read along the direct path and through the later layers, the
latter by the mean over the built-in openings, none of which is among the texts. A token names the noun as in
`meaning.py`, which says what it needs. Controls: the same tokens judged by the other texts' nouns, and as many random
neurons of the same layers. Intervals resample texts.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neuronwise as nw
from meaning import interval, related, relatives, singular, wordnet
from neuronwise.files import make_folder, versions, write_json
from neuronwise.locate.controls import random_same_layers
from neuronwise.read import decode_all
from neuronwise.read.decode import THROUGH

TEXTS = {
    "kitten": "A young cat is called a",
    "puppy": "A young dog is called a",
    "honey": "Bees live in a hive and make",
    "heart": "The organ that pumps blood through the body is the",
    "lion": "The animal known as the king of the jungle is the",
    "moon": "The natural satellite of the Earth is the",
    "ice": "Frozen water is called",
    "piano": "The instrument with black and white keys is the",
    "pilot": "A person who flies an airplane is called a",
    "dentist": "A doctor who takes care of teeth is called a",
    "breakfast": "The meal that we eat in the morning is",
    "summer": "The season after spring is",
    "library": "A place where books can be borrowed is a",
    "milk": "Cheese and butter are made from",
    "whale": "The largest animal in the ocean is the blue",
    "train": "The vehicle that runs on rails is a",
}
THIRDS = 3
SCORED = 10_000  # neurons of a text among which each third's are looked for


@dataclass(frozen=True)
class Case:
    """One noun and one third of the layers: the tokens of its neurons and of random ones, by way of reading."""

    word: str
    third: int
    neurons: list[str]
    tokens: dict[str, list[list[str]]]
    random: dict[str, list[list[str]]]


def measured(model: nw.Model, count: int) -> list[Case]:
    """All texts, read together: a pass pushes many vectors."""
    found: list[tuple[str, int, nw.NeuronSet]] = []
    for word, text in TEXTS.items():
        run = model.run(prompt=text, max_new_tokens=0, chat=False)
        scored = nw.locate(model, run, target=f" {word}", method="gradient_activation", contrast=10, top=SCORED)
        for third in range(THIRDS):
            own = [member for member in scored if member.neuron.layer * THIRDS // model.num_layers == third]
            found.append((word, third, nw.NeuronSet.of(own[:count])))
    controls = [random_same_layers(model, own, seed=index) for index, (_, _, own) in enumerate(found)]
    everything = [member for one in (*(own for _, _, own in found), *controls) for member in one]
    read = {way: iter(decode_all(model, everything, through=way)) for way in THROUGH}

    def next_of(sets: list[nw.NeuronSet]) -> list[dict[str, list[list[str]]]]:
        return [{way: [next(tokens) for _ in own] for way, tokens in read.items()} for own in sets]

    tokens, chance = next_of([own for _, _, own in found]), next_of(controls)
    return [
        Case(word, third, [str(member.neuron) for member in own], tokens[index], chance[index])
        for index, (word, third, own) in enumerate(found)
    ]


def table(cases: list[Case], layers: int) -> str:
    """One row for each third and way of reading, and one for the difference of the two."""
    rows = [
        "| layers | read | nouns with a neuron that names them | related pairs in a list | the same, random neurons "
        "| across lists | tokens that are words |",
        "|---|---|---|---|---|---|---|",
    ]
    values = (_names, _related, _related_at_random, _across, _words)
    for third in range(THIRDS):
        own = [case for case in cases if case.third == third]
        inside = [layer for layer in range(layers) if layer * THIRDS // layers == third]
        found = {way: [[value(case, way) for case in own] for value in values] for way in THROUGH}
        direct, later = (found[way] for way in THROUGH)
        found["difference"] = [[b - a for a, b in zip(*pair, strict=True)] for pair in zip(direct, later, strict=True)]
        for way, columns in found.items():
            cells = [interval([[value] for value in column]) for column in columns]
            rows.append(f"| {inside[0]}–{inside[-1]} | {way} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _names(case: Case, way: str) -> float:
    return float(related(case.tokens[way], case.word) > 0)


def _related(case: Case, way: str) -> float:
    return float(np.mean([_share(itertools.combinations(tokens, 2)) for tokens in case.tokens[way]]))


def _related_at_random(case: Case, way: str) -> float:
    return float(np.mean([_share(itertools.combinations(tokens, 2)) for tokens in case.random[way]]))


def _across(case: Case, way: str) -> float:
    """Of pairs of a token of one of the random neurons and a token of a located one."""
    pairs = zip(case.tokens[way], case.random[way], strict=True)
    return float(np.mean([_share(itertools.product(*both)) for both in pairs]))


def _share(pairs: Iterable[tuple[str, str]]) -> float:
    return float(np.mean([_alike(*map(_word, pair)) for pair in pairs]))


@cache
def _alike(first: str, second: str) -> bool:
    """Two words, not one, with a common relative."""
    if not first or not second or singular(first) == singular(second):
        return False
    return not relatives(first).isdisjoint(relatives(second))


def _word(token: str) -> str:
    """A token as a word of WordNet's nouns, "" for anything else."""
    bare = token.strip().lower()
    return bare if bare.isalpha() and len(bare) > 2 and relatives(bare) else ""


def _words(case: Case, way: str) -> float:
    """The share of tokens that are nouns of WordNet, whatever they mean."""
    return float(np.mean([bool(_word(token)) for tokens in case.tokens[way] for token in tokens]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin-text")
    parser.add_argument("--count", type=int, default=2, help="neurons of each noun and third")
    parser.add_argument("--out", type=Path, help="write every neuron's tokens there, as cases.json")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    wordnet()
    model = nw.load(options.model)
    cases = measured(model, options.count)
    if options.out is not None:
        content: dict[str, Any] = {"model": model.name, "versions": versions(), "cases": [asdict(c) for c in cases]}
        write_json(make_folder(options.out) / "cases.json", content)
    print(f"{model.name}: {len(TEXTS)} nouns, {options.count} neurons each.\n\n{table(cases, model.num_layers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
