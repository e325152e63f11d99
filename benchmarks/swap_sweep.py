"""Settings of `swap`, one changed at a time, on COCO train photos that `captions.py` then leaves out.

    python benchmarks/swap_sweep.py DATA/coco-mini --out swap-sweep

For each photo whose caption names an annotated object, the object's word is swapped for another category's. One line
of sweep.jsonl for each photo and setting: run it again and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import neuronwise as nw
from captions import Case, cases, one_token_names
from coco_captions import add_line, caption, interval, kept, lines_of, opened, repetition
from neuronwise.answers.naming import swapped
from neuronwise.edit import swap
from neuronwise.errors import NeuronwiseError

SETTINGS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "as published": {"top": 50, "spare": None},
    "top=50": {"top": 50},
    "top=1000": {"top": 1000},
    "spare=0.01": {"spare": 0.01},
    "spare=0.5": {"spare": 0.5},
    "plain contribution": {"options": {}},
    "read=model": {"read": "model"},
    "step=0.1, growth=1": {"step": 0.1, "growth": 1.0},
    "cap=0.2": {"cap": 0.2},
    "beta=10": {"beta": 10.0},
}


def measure(model: nw.Model, run: nw.Run, case: Case, others: list[Any], changes: dict[str, Any]) -> dict[str, Any]:
    edit = swap(model, run, case.word, case.target, **changes)
    with edit.applied(model):
        after = (edit.record.get("texts") or [caption(model, case.photo).text])[0]
        beside = [caption(model, other).text for other in others]
    return {
        "before": run.text,
        "after": after,
        "swapped": swapped(after, case.word, case.target),
        "kept": kept(case.rest, after),
        "repetition": repetition(after),
        "unchanged": sum(text == other.text for text, other in zip(beside, others, strict=True)) / len(others),
        "norm": edit.record["norm"],
        "steps": edit.record["steps"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--others", type=int, default=1, help="other photos that show the side effect")
    options, model, shown = opened(parser, "swap-sweep")
    train = [photo for photo in shown if photo.path.parent.name == "train2017"]
    chosen = cases(train, 1, one_token_names(model))[: options.photos]
    path = options.out / "sweep.jsonl"
    done = {(row["photo"], row["setting"]): row for row in lines_of(path)}
    for case in chosen:
        others = [photo for photo in train if photo is not case.photo and case.category not in photo.objects]
        run = caption(model, case.photo)
        for setting, changes in SETTINGS.items():
            if (case.photo.name, setting) in done:
                continue
            try:
                row = measure(model, run, case, others[: options.others], changes)
            except NeuronwiseError as error:
                row = {"failed": str(error)}
            row = {"photo": case.photo.name, "setting": setting, "word": case.word, "target": case.target, **row}
            done[case.photo.name, setting] = row
            add_line(path, row)
        print(f"{case.photo.name}: {case.word} -> {case.target}", file=sys.stderr)
    print(f"{len(chosen)} photos; each line changes one thing of the defaults.\n")
    print("| setting | swapped | other nouns kept | repetition | other photos unchanged | norm of Δ | steps |")
    print("|---|---|---|---|---|---|---|")
    for setting in SETTINGS:
        rows = [done[c.photo.name, setting] for c in chosen if "failed" not in done[c.photo.name, setting]]
        columns = ("swapped", "kept", "repetition", "unchanged", "norm", "steps")
        print(f"| {setting} | {' | '.join(interval([row[name] for row in rows]) for name in columns)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
