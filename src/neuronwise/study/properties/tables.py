"""Tables of a study of neurons' properties; what photos and concepts share is computed here, from the rows."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from neuronwise.drawing.tables import Cell, Estimate, Table
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.measure.metrics import MODEL_METRICS
from neuronwise.measure.properties import common, crucial_elsewhere, exclusive, pairwise, specific
from neuronwise.neurons import Neuron
from neuronwise.study.kind import Study
from neuronwise.study.rows import Rows, average, by, mean, where
from neuronwise.study.store import Row

Sets = dict[str, list[list[Neuron]]]  # word → the neurons of each of its photos
T = TypeVar("T")
DRAWS = 100  # subsets of photos, where a concept has more than are compared


def tables(study: Study) -> list[Table]:
    """Meaning, invariance, specificity, heat and noise."""
    rows = where(study.rows, part="neurons")
    if not rows:
        return []
    found = [_meaning(rows), _invariance(rows, study.recipe), _specificity(rows, study.recipe), _heat(rows)]
    found += [_noise(study.rows, sweep) for sweep in ("sigma", "K")]
    return [table for table in found if table.rows]


def by_word(rows: Iterable[Row], method: str, images: int) -> Sets:
    """The neurons of each word that at least ``images`` captions say, photo by photo; sets without neurons left out."""
    found: Sets = {}
    for row in where(rows, method=method):
        if row["neurons"]:
            found.setdefault(row["word"].lower(), []).append([Neuron.parse(name) for name in row["neurons"]])
    return {word: sets for word, sets in found.items() if len(sets) >= images}


def subsets(sets: Sequence[T], size: int, seed: int) -> list[Sequence[T]]:
    """All choices of ``size``, or ``DRAWS`` of them drawn by the seed."""
    if math.comb(len(sets), size) <= DRAWS:
        return list(itertools.combinations(sets, size))
    generator = random.Random(seed)
    return [generator.sample(list(sets), size) for _ in range(DRAWS)]


def _meaning(rows: Rows) -> Table:
    measured = [name for name in MODEL_METRICS if any(row.get(name) is not None for row in rows)]
    absent = [name for name in MODEL_METRICS if name not in measured]
    body: list[list[Cell]] = []
    for name, own in by(rows, "method").items():
        scores = [mean(own, metric) for metric in measured]
        body.append([name, mean(own, "says_word"), *scores, mean(own, "seconds_finding"), len(own)])
    return Table(
        "meaning",
        "What the neurons decode to",
        ("method", "say the word", *(name.replace("_", " ") for name in measured), "CPU s a word", "photos"),
        body,
        "Say the word: of the first neurons, the share with the caption's word among their top tokens. "
        + ("Scores: of the best neuron of each photo, mean over photos. " if measured else "")
        + (
            f"Not measured: {', '.join(absent)}; give their models as metric_models (bert, clip, bleurt). "
            if absent
            else ""
        )
        + "95 % bootstrap intervals over photos.",
    )


def _invariance(rows: Rows, recipe: Row) -> Table:
    images, seed = recipe["images"], recipe["seed"]
    body: list[list[Cell]] = []
    words = 0
    for name, own in by(rows, "method").items():
        sets = by_word(rows, name, images)
        words = max(words, len(sets))
        draws = {word: subsets(each, images, seed) for word, each in sets.items()}
        shared, paired = (
            Estimate.of(mean_interval(sum(map(measure, chosen)) / len(chosen) for chosen in draws.values()), 3)
            for measure in (common, pairwise)
        )
        body.append([name, mean(own, "shuffled_overlap"), shared, paired, len(sets)])
    return Table(
        "invariance",
        "What moves the neurons",
        ("method", "kept when shuffled", f"common to {images} photos", "shared by pairs", "words"),
        body,
        f"Shares of the first {recipe['K']} neurons. Shuffled: the image's tokens in another order, interval over "
        f"photos. Common: to {images} photos whose captions say the same word; pairs: to two of these; mean over "
        f"choices of photos, interval over the {words} words that enough captions say. Random neurons are drawn anew "
        "each time: they show chance.",
    )


class Specific(NamedTuple):
    """How much neurons belong to one word: shares word by word, exclusive and below each κ, and how many words."""

    exclusive: list[float]
    below: dict[float, list[float]]
    words: int


def specificity(rows: Iterable[Row], method: str, images: int, kappas: Sequence[float]) -> Specific | None:
    """Shares of one method's neurons that belong to one word alone: exclusive, and below each κ, word by word.

    Of every word the first ``images`` photos, so that all weigh the same; a word's neurons are those in the top K of
    any of them. None where fewer than two words have as many photos.
    """
    sets = {word: own[:images] for word, own in by_word(rows, method, images).items()}
    if len(sets) < 2:
        return None
    chances = crucial_elsewhere(sets)
    united = {word: list(dict.fromkeys(itertools.chain(*own))) for word, own in sets.items()}
    below = {kappa: [specific(chances[word], kappa) for word in sets] for kappa in kappas}
    return Specific(list(exclusive(united).values()), below, len(sets))


def _specificity(rows: Rows, recipe: Row) -> Table:
    images, kappas = recipe["images"], recipe["kappas"]
    body: list[list[Cell]] = []
    for name in by(rows, "method"):
        found = specificity(rows, name, images, kappas)
        if found is not None:
            below = [Estimate.of(mean_interval(found.below[kappa])) for kappa in kappas]
            body.append([name, Estimate.of(mean_interval(found.exclusive)), *below, found.words])
    return Table(
        "specificity",
        "How much the neurons belong to one word",
        ("method", "exclusive", *(f"κ < {kappa:.0%}" for kappa in kappas), "words"),
        body,
        f"Of a word's neurons (among the first {recipe['K']} of any of {images} photos) the share that no other word "
        "has, and the share that is crucial for other words with probability below κ: the mean over the other words of "
        "the share of their photos whose first neurons hold it. Intervals over words. Random neurons rarely meet "
        "anywhere, so they look specific without meaning anything: read this beside the invariance.",
    )


def _heat(rows: Rows) -> Table:
    body: list[list[Cell]] = []
    for name, own in by((row for row in rows if row.get("heat_iou") is not None), "method").items():
        lifted = Estimate.of(mean_interval(row["heat_iou"] - row["heat_chance"] for row in own), 3)
        iou, chance = mean(own, "heat_iou", digits=3), average(own, "heat_chance", digits=3)
        body.append([name, iou, chance, lifted, mean(own, "heat_pointing"), average(own, "object_share"), len(own)])
    return Table(
        "heat",
        "Where the neurons fire",
        ("method", "IoU", "chance", "IoU − chance", "hottest point on it", "chance of that", "photos"),
        body,
        "Intersection over union of the hottest 5 % of the photo with the object. Chance: as many pixels scattered "
        "blindly; of the hottest point, the share of the photo that the object takes. 95 % bootstrap intervals over "
        "photos.",
    )


def _noise(rows: Rows, sweep: str) -> Table:
    own = [row for row in rows if row["part"] == "noise" and row["sweep"] == sweep]
    body: list[list[Cell]] = [
        [name, f"{cell:g}", mean(here, "drop"), mean(here, "first"), mean(here, "said"), len(here)]
        for (name, cell), here in by(own, "method", sweep).items()
    ]
    fixed = {"sigma": "K", "K": "sigma"}[sweep]
    value = f"{own[0][fixed]:g}" if own else ""
    unit = "" if not own or own[0]["unit"] == 1 else f" σ in units of {own[0]['unit']:.3f}, the value vectors' spread."
    title = {"sigma": f"Noise on {value} neurons", "K": f"Noise of σ = {value} on more and more neurons"}[sweep]
    return Table(
        f"noise-{sweep.lower()}",
        title,
        ("method", {"sigma": "σ", "K": "K"}[sweep], "drop, nats", "still first choice", "caption names it", "photos"),
        body,
        "Drop of log p of the word with the output before it forced, share of photos where it stays the first choice, "
        f"and share of captions generated under the noise that still name the concept.{unit}",
    )
