"""Objects that captions name and nobody sees: neurons found on some photos, suppressed, and counted on others.

    python benchmarks/hallucination.py DATA/coco-mini --out hallucination-results

A noun of a caption is unsupported when it stands for a COCO category that neither the annotated objects of the photo
nor its human captions have (CHAIR, Rohrbach et al. 2018, arXiv:1809.02156), and true when one of them has it; nouns
that stand for no category are not judged. For each category that is named without support on enough photos, its
neurons are found on some of them and suppressed as an edit; then the other ones are captioned anew, and photos where
the same category is truly there. Random neurons of the same layers are the control. One line of concepts.jsonl for
each category: run it again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from typing import Any

import neuronwise as nw
from coco_captions import Photo, add_line, caption, interval, lines_of, opened, repetition, spoken_objects
from neuronwise.answers.naming import objects_named
from neuronwise.edit import suppress_neurons
from neuronwise.locate import locate
from neuronwise.locate.contribution import SHARP
from neuronwise.neurons import NeuronSet

KINDS = ("located", "random_same_layers")


def judged(photo: Photo, text: str) -> tuple[set[str], set[str]]:
    """(unsupported, true) categories that a caption of the photo names."""
    said = objects_named(text)
    there = photo.objects | photo.named
    return said - there, said & there


def word_for(photo: Photo, category: str) -> str:
    return next(word for word, stands_for in spoken_objects(photo) if stands_for == category)


def found_on(model: nw.Model, made_on: Sequence[Photo], category: str, top: int) -> dict[str, NeuronSet]:
    """The category's neurons over some photos, and as many random ones of the same layers."""
    runs = [caption(model, photo) for photo in made_on]
    words = [word_for(photo, category) for photo in made_on]
    located = locate(model, runs, words, top=top, **SHARP)
    control = locate(model, runs[0], words[0], method="random_same_layers", among=located, top=top)
    return dict(zip(KINDS, (located, control), strict=True))


def told(photo: Photo, category: str, after: str) -> dict[str, Any]:
    unsupported, true = judged(photo, photo.text)
    still, stayed = judged(photo, after)
    others = true - {category}
    return {
        "photo": photo.name, "before": photo.text, "after": after,
        "named": category in objects_named(after),
        "unsupported": [len(unsupported), len(still)],
        "true kept": len(others & stayed) / len(others) if others else None,
        "unchanged": after == photo.text,
        "repetition": repetition(after),
    }  # fmt: skip


def concept(model: nw.Model, category: str, shown: Sequence[Photo], options: argparse.Namespace) -> dict[str, Any]:
    choice = random.Random(f"{options.seed}/{category}")
    without = [photo for photo in shown if category in judged(photo, photo.text)[0] and spoken(photo, category)]
    with_it = [photo for photo in shown if category in judged(photo, photo.text)[1]]
    without = choice.sample(without, len(without))
    made_on, tested = without[: options.made_on], without[options.made_on :]
    truly = choice.sample(with_it, min(len(with_it), len(tested)))
    row: dict[str, Any] = {"category": category, "made_on": [photo.name for photo in made_on], "neurons": {}}
    for kind, neurons in found_on(model, made_on, category, options.top).items():
        row["neurons"][kind] = [str(neuron) for neuron in neurons.neurons]
        with suppress_neurons(model, neurons).applied(model):
            row[kind] = {
                "unsupported": [told(photo, category, caption(model, photo).text) for photo in tested],
                "true": [told(photo, category, caption(model, photo).text) for photo in truly],
            }
    return row


def spoken(photo: Photo, category: str) -> bool:
    """Whether one noun stands for the category (a phrase of several words has no single place to score)."""
    return any(stands_for == category for _, stands_for in spoken_objects(photo))


def report(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| neurons suppressed | unsupported noun gone | unsupported nouns a caption, before → after "
        "| other true nouns kept | repetition | where it is there: still named | caption unchanged |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        wrong = [told for row in rows for told in row[kind]["unsupported"]]
        right = [told for row in rows for told in row[kind]["true"]]
        before, after = (interval([told["unsupported"][side] for told in wrong]) for side in (0, 1))
        cells = [
            interval([not told["named"] for told in wrong]),
            f"{before} → {after}",
            interval([told["true kept"] for told in [*wrong, *right]]),
            interval([told["repetition"] for told in wrong]),
            interval([told["named"] for told in right]),
            interval([told["unchanged"] for told in right]),
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--top", type=int, default=10, help="neurons suppressed")
    parser.add_argument("--made-on", type=int, default=5, help="photos that the neurons are found on")
    parser.add_argument("--least", type=int, default=8, help="photos that a category must be named on without support")
    options, model, shown = opened(parser, "hallucination-results")
    counts: dict[str, int] = {}
    unsupported = true = 0
    for photo in shown:
        wrong, right = judged(photo, photo.text)
        unsupported, true = unsupported + len(wrong), true + len(right)
        for category in wrong:
            counts[category] = counts.get(category, 0) + spoken(photo, category)
    chosen = sorted(category for category, count in counts.items() if count >= options.least)
    path = options.out / "concepts.jsonl"
    done = {row["category"]: row for row in lines_of(path)}
    for category in chosen:
        if category not in done:
            done[category] = concept(model, category, shown, options)
            add_line(path, done[category])
        print(f"{category}: {counts[category]} photos", file=sys.stderr)
    rows = [done[category] for category in chosen]
    print(f"{len(shown)} captions name {true} categories that are there and {unsupported} that are not.")
    for row in rows:
        tested, truly = (len(row[KINDS[0]][side]) for side in ("unsupported", "true"))
        print(
            f"{row['category']}: found on {len(row['made_on'])} photos, tested on {tested} where it is not there "
            f"and {truly} where it is."
        )
    print(f"\n{report(rows)}" if rows else "No category is named without support on enough photos.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
