"""Does an edit made in one modality hold in the others? Edits made and asked by photo and text, by text, by photo.

    python benchmarks/modalities.py DATA/coco-mini --out modalities-results

`fine`: for photos with one annotated category, the fact "The {} in the photo is a kind of" gets a new answer, in a
request made jointly, by text alone or by the photo alone, and is then asked in all three ways (`asked`). `swap`: the
word of the caption is swapped, and asked for by the caption's own prompt, by another question about the photo, and by
text alone, which is to repeat the caption as it was before. One line of edits.jsonl for each photo and edit: run it
again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch

import neuronwise as nw
from captions import Case, cases, one_token_names
from coco_captions import add_line, caption, interval, lines_of, opened
from neuronwise.answers.modalities import MODALITIES, asked
from neuronwise.answers.naming import names, swapped
from neuronwise.answers.request import forced
from neuronwise.data.words import PERSON
from neuronwise.edit import fine, swap

PROMPT = "The {} in the photo is a kind of"
KINDS = ("vehicle", "animal", "fruit", "furniture", "tool", "weapon")
QUESTION = "What is in the photo?"


def forced_success(model: nw.Model, fact: nw.Fact) -> float:
    """The share of target tokens that are the first choice with the ones before them given."""
    request = forced(model, fact)
    count = len(request.output_ids)
    with torch.no_grad():
        logits = model.forward(request.forced_inputs(), rows=[request.row(k) for k in range(count)])[0]
    return float((logits.argmax(-1).cpu() == torch.tensor(request.output_ids)).float().mean())


def free_success(model: nw.Model, fact: nw.Fact) -> bool:
    chat = None if fact.image is not None else False
    text = model.run(fact.image, fact.text, max_new_tokens=6, chat=chat).text
    return text.strip().lower().startswith(fact.target_new.strip().lower())


def fine_in(model: nw.Model, fact: nw.Fact, made: str) -> dict[str, Any]:
    edit = fine(model, asked(fact, made))
    with edit.applied(model):
        forced_ = {way: forced_success(model, asked(fact, way)) for way in MODALITIES}
        free = {way: free_success(model, asked(fact, way)) for way in MODALITIES}
    return {"forced": forced_, "free": free}


def swap_in(model: nw.Model, case: Case) -> dict[str, Any]:
    run = caption(model, case.photo)
    edit = swap(model, run, case.word, case.target)
    repeat = f"Repeat this sentence: {run.text}"

    def texts() -> dict[str, str]:
        return {
            "joint": caption(model, case.photo).text,
            "image": model.run(case.photo.path, QUESTION, max_new_tokens=20).text,
            "text": model.run(None, repeat, max_new_tokens=20, chat=True).text,
        }

    before = texts()
    with edit.applied(model):
        after = texts()
    said = {way: names(text, case.word) for way, text in before.items()}
    free = {way: swapped(t, case.word, case.target) if said[way] else None for way, t in after.items()}
    return {"before": before, "after": after, "free": free}


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| edit made | measured | asked jointly | by text alone | by the photo alone |", "|---|---|---|---|---|"]
    for made in [*MODALITIES, "swap"]:
        own = [row for row in rows if row["made"] == made]
        for kind, label in (("forced", "target tokens first choice, forced"), ("free", "said in free generation")):
            if own and kind in own[0]:
                cells = [interval([row[kind][way] for row in own]) for way in MODALITIES]
                name = "swap, by the caption" if made == "swap" else f"fine, {made}"
                lines.append(f"| {name} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10)
    options, model, shown = opened(parser, "modalities-results")
    chosen = [case for case in cases(shown, options.seed, one_token_names(model)) if case.category != PERSON][
        : options.photos
    ]
    path = options.out / "edits.jsonl"
    done = {(row["photo"], row["made"]): row for row in lines_of(path)}
    for number, case in enumerate(chosen):
        taken = case.photo.supercategories[case.category]
        kind = next(k for k in KINDS[number % len(KINDS) :] + KINDS if k != taken)
        fact = nw.Fact(PROMPT, case.category, kind, image=str(case.photo.path))
        for made in [*MODALITIES, "swap"]:
            if (case.photo.name, made) not in done:
                row = swap_in(model, case) if made == "swap" else fine_in(model, fact, made)
                row = {"photo": case.photo.name, "made": made, "subject": case.category, "target": kind, **row}
                done[case.photo.name, made] = row
                add_line(path, row)
        print(f"{number + 1}/{len(chosen)} {case.category}: {kind}, {case.word}: {case.target}", file=sys.stderr)
    print(f"{len(chosen)} photos, {len(MODALITIES)} edits by fine and one by swap for each.\n")
    print(table([done[case.photo.name, made] for case in chosen for made in [*MODALITIES, "swap"]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
