"""Taking a word out of captions: `swap` and `suppress` on COCO photos, against the same on random neurons.

    python benchmarks/captions.py DATA/coco-mini --out captions-results

For each photo whose caption names an annotated object, the object's word is swapped for another category's, and in an
edit of its own suppressed; then the photo is captioned anew, and other photos that do not show the object. Controls
take as many random neurons (of all, and of the same layers) and move them as far, as a share of their norm. For
concepts that at least five captions name, neurons are found on some of the photos (at most three) and the edit is
tested on others. One line of single.jsonl or concepts.jsonl for each case: run it again and it goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import neuronwise as nw
from coco_captions import (
    Photo,
    add_line,
    caption,
    interval,
    kept,
    lines_of,
    opened,
    repetition,
    spoken_objects,
)  # fmt: skip
from neuronwise.answers.naming import names, objects_named
from neuronwise.data.words import COCO_CATEGORIES, PERSON
from neuronwise.edit import Edit, suppress, swap
from neuronwise.errors import NeuronwiseError
from neuronwise.locate import locate
from neuronwise.locate.contribution import SHARP

NEURONS = ("located", "random_same_layers", "random")
TOP = {"swap": 300, "swap as published": 50, "suppress": 10}
SETTINGS: dict[str, dict[str, Any]] = {"swap": {}, "swap as published": {"spare": None}}
ENOUGH = 5  # photos of a concept that is split in two
MADE_ON, TESTED_ON = 3, 6  # at most so many photos of a concept


@dataclass(frozen=True)
class Case:
    """A word of a photo's caption that stands for an annotated object, what to swap it for, and the other nouns."""

    photo: Photo
    word: str
    category: str
    target: str

    @property
    def rest(self) -> list[str]:
        return [noun for noun in self.photo.nouns if not names(noun, self.word)]


def one_token_names(model: nw.Model) -> set[str]:
    """Categories whose name is one token after a space: `swap` moves a target's first token."""
    return {
        name for name in COCO_CATEGORIES if len(model.tokenizer(f" {name}", add_special_tokens=False).input_ids) == 1
    }


def cases(shown: Sequence[Photo], seed: int, targets: set[str]) -> list[Case]:
    """One case for each photo that has any, in a seeded order.

    Persons are taken where nothing else is there: most photos have some. The target is a category of ``targets``
    that is neither on the photo nor in its caption, of the same supercategory where there is one.
    """
    found = []
    for photo in shown:
        choice = random.Random(f"{seed}/{photo.name}")
        there = [(word, category) for word, category in spoken_objects(photo) if category in photo.objects]
        if there:
            word, category = choice.choice([pair for pair in there if pair[1] != PERSON] or there)
            found.append(Case(photo, word, category, target_for(photo, category, choice, targets)))
    return random.Random(seed).sample(found, len(found))


def target_for(photo: Photo, category: str, choice: random.Random, targets: set[str]) -> str:
    free = [
        name for name in photo.supercategories
        if name in targets and name not in photo.objects and not names(photo.text, name) and name != category
    ]  # fmt: skip
    close = [name for name in free if photo.supercategories[name] == photo.supercategories[category]]
    return choice.choice(close or free)


def edits(model: nw.Model, runs: list[nw.Run], word: str, target: str, seed: int) -> Iterator[tuple[str, str, Edit]]:
    """(editor, kind of neurons, edit) of every editor with located neurons and as many random ones."""
    best = locate(model, runs, word, top=max(TOP.values()), **SHARP)
    moved = 0.0
    for editor, top in TOP.items():
        for kind in NEURONS:
            neurons = best[:top]
            if kind == "random_same_layers":
                neurons = locate(model, runs[0], word, method=kind, among=neurons, top=top, seed=seed)
            elif kind == "random":
                neurons = locate(model, runs[0], word, method=kind, top=top, seed=seed)
            if editor in SETTINGS:
                # The loss is linear: one step takes the controls as far as the located neurons had to be moved.
                far = {"step": moved, "cap": moved, "steps": 1} if kind != "located" else {}
                edit = swap(model, runs, word, target, neurons=neurons, **SETTINGS[editor], **far)
                moved = edit.record["norm"]
                yield editor, kind, edit
            else:
                yield editor, kind, suppress(model, runs, word, neurons=neurons, generate=False)


def told(case: Case, after: str) -> dict[str, Any]:
    """What became of one photo's caption."""
    before = case.photo.text
    return {
        "photo": case.photo.name, "word": case.word, "before": before, "after": after,
        "left": not names(after, case.word),
        "category": case.category not in objects_named(after),
        "entered": names(after, case.target),
        "kept": kept(case.rest, after),
        "unchanged": after == before,
        "length": len(after.split()) / max(1, len(before.split())),
        "repetition": repetition(after),
    }  # fmt: skip


def beside(photo: Photo, target: str, after: str) -> dict[str, Any]:
    """What became of the caption of a photo that the edit was not meant for."""
    return {
        "photo": photo.name, "before": photo.text, "after": after, "unchanged": after == photo.text,
        "kept": kept(photo.nouns, after), "entered": names(after, target) and not names(photo.text, target),
    }  # fmt: skip


def single(model: nw.Model, case: Case, shown: Sequence[Photo], others: int, seed: int) -> dict[str, Any]:
    """One photo: both editors, located and random neurons."""
    choice = random.Random(f"{seed}/others/{case.photo.name}")
    strangers = [p for p in shown if case.category not in p.objects and not names(p.text, case.word) and p.nouns]
    strangers = choice.sample(strangers, others)
    run = caption(model, case.photo)
    row: dict[str, Any] = {"photo": case.photo.name, "word": case.word, "target": case.target, "edits": {}}
    for editor, kind, edit in edits(model, [run], case.word, case.target, seed):
        with edit.applied(model):
            texts = edit.record.get("texts")  # swap has asked already
            own = told(case, texts[0] if texts else caption(model, case.photo).text)
            side = [beside(p, case.target, caption(model, p).text) for p in strangers if kind != "random"]
        about = {name: edit.record.get(name) for name in ("success", "steps", "norm", "note")}
        row["edits"][f"{editor}/{kind}"] = {**about, "own": own, "others": side}
    return row


def concept(
    model: nw.Model, word: str, group: list[Case], shown: Sequence[Photo], others: int, seed: int
) -> dict[str, Any]:
    """One concept: neurons and edit from some of its photos, tested on others of it and on strangers."""
    half = min(len(group) // 2, MADE_ON)
    made_on, tested = group[:half], group[half : half + TESTED_ON]
    taken = {name for case in group for name in case.photo.objects | objects_named(case.photo.text)}
    target = next(case.target for case in group if case.target not in taken)
    tested = [Case(case.photo, case.word, case.category, target) for case in tested]
    choice = random.Random(f"{seed}/others/{word}")
    strangers = [p for p in shown if group[0].category not in p.objects and not names(p.text, word) and p.nouns]
    strangers = choice.sample(strangers, others)
    runs = [caption(model, case.photo) for case in made_on]
    row: dict[str, Any] = {"concept": word, "target": target, "photos": half, "edits": {}}
    for editor, kind, edit in edits(model, runs, word, target, seed):
        with edit.applied(model):
            own = [told(case, caption(model, case.photo).text) for case in tested]
            side = [beside(p, target, caption(model, p).text) for p in strangers if kind != "random"]
        row["edits"][f"{editor}/{kind}"] = {"success": edit.record.get("success"), "own": own, "others": side}
    return row


def groups(found: Sequence[Case]) -> dict[str, list[Case]]:
    """Cases by the word that their captions say, where there are enough; the target is none of any of the photos."""
    by_word: dict[str, list[Case]] = {}
    for case in found:
        by_word.setdefault(case.word.lower(), []).append(case)
    return {word: group for word, group in by_word.items() if len(group) >= ENOUGH}


def table(title: str, owned: dict[str, list[dict[str, Any]]], others: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        f"| {title} | word leaves | its category leaves | target enters | other nouns stay | length | repetition "
        "| other photos unchanged | their nouns stay | target in them |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in owned.items():
        columns = [
            interval([row[key] for row in rows])
            for key in ("left", "category", "entered", "kept", "length", "repetition")
        ]
        columns += [interval([row[key] for row in others[name]]) for key in ("unchanged", "kept", "entered")]
        lines.append(f"| {name.replace('/', ', ')} | {' | '.join(columns)} |")
    return "\n".join(lines)


def report(singles: Sequence[dict[str, Any]], concepts: Sequence[dict[str, Any]]) -> str:
    names_of = [f"{editor}/{kind}" for editor in TOP for kind in NEURONS]
    parts = [f"{len(singles)} photos, one edit each; mean and 95 % bootstrap interval.\n"]
    own = {name: [row["edits"][name]["own"] for row in singles] for name in names_of}
    side = {name: [o for row in singles for o in row["edits"][name]["others"]] for name in names_of}
    parts.append(table("the photo edited", own, side))
    if concepts:
        listed = ", ".join(f"{row['concept']} → {row['target']}" for row in concepts)
        own = {name: [o for row in concepts for o in row["edits"][name]["own"]] for name in names_of}
        side = {name: [o for row in concepts for o in row["edits"][name]["others"]] for name in names_of}
        parts.append(f"\n{len(concepts)} concepts ({listed}): found on two or three photos, tested on others.\n")
        parts.append(table("unseen photos", own, side))
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=30, help="photos with an edit of their own")
    parser.add_argument("--others", type=int, default=1, help="other photos captioned under each edit")
    parser.add_argument("--left-out", type=int, default=6, help="train photos that the settings were chosen on")
    options, model, shown = opened(parser, "captions-results")
    targets = one_token_names(model)
    train = [photo for photo in shown if photo.path.parent.name == "train2017"]
    used = {case.photo.name for case in cases(train, 1, targets)[: options.left_out]}
    shown = [photo for photo in shown if photo.name not in used]
    found = cases(shown, options.seed, targets)
    collected: dict[str, list[dict[str, Any]]] = {}
    works: dict[str, dict[str, Any]] = {
        "single": {
            case.photo.name: lambda case=case: single(model, case, shown, options.others, options.seed)
            for case in found[: options.photos]
        },
        "concepts": {
            word: lambda word=word, group=group: concept(model, word, group, shown, 4 * options.others, options.seed)
            for word, group in groups(found).items()
        },
    }
    for name, work in works.items():
        path = options.out / f"{name}.jsonl"
        done = {row.get("concept", row.get("photo")): row for row in lines_of(path)}
        for number, (key, make) in enumerate(work.items()):
            if key not in done:
                try:
                    done[key] = make()
                except NeuronwiseError as error:
                    print(f"{key}: {error}", file=sys.stderr)
                    continue
                add_line(path, done[key])
            print(f"{name} {number + 1}/{len(work)} {key}", file=sys.stderr, flush=True)
        collected[name] = [done[key] for key in work if key in done]
    print(report(collected["single"], collected["concepts"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
