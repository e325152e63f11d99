"""Which of the shipped facts a model knows, and which of their probes it answers rightly before any edit.

    python tools/known_facts.py
    python tools/known_facts.py --model builtin-text --facts-only --out known.json

Text alone, no chat template. "forced": every token of the answer is the argmax behind "prompt answer". "free": greedy
generation says the whole answer first, and then no further letter of the word. A fact is known when it is both. A probe
is answered when one of its answers is forced. "already": portability questions that the model answers as the edit would
have it, without any edit; they measure nothing. Exits with 1 when fewer than ``--least`` facts are known.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

import neuronwise as nw
from neuronwise.answers.request import target_ids
from neuronwise.data.facts import FactCase
from neuronwise.data.facts.load import SHIPPED_FILE
from neuronwise.files import write_json

Question = tuple[str, str]  # a prompt and one answer


def forced(model: nw.Model, questions: Iterable[Question], batch: int = 16) -> dict[Question, bool]:
    """Whether all tokens of the answer are argmax, teacher-forced. Only sequences of one length share a batch."""
    groups: dict[tuple[int, int], list[tuple[Question, list[int], list[int]]]] = defaultdict(list)
    for question in dict.fromkeys(questions):
        prompt, answer = question
        read, said = model.tokenizer(prompt)["input_ids"], target_ids(model, answer)
        groups[len(read), len(said)].append((question, read, said))
    found: dict[Question, bool] = {}
    for (_, width), group in groups.items():
        rows = list(range(-width - 1, -1))
        for start in range(0, len(group), batch):
            part = group[start : start + batch]
            ids = torch.tensor([read + said for _, read, said in part])
            with torch.no_grad():
                logits = model.forward({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, rows=rows)
            right = (logits.argmax(-1).cpu() == ids[:, -width:]).all(-1)
            found.update({question: bool(hit) for (question, _, _), hit in zip(part, right, strict=True)})
    return found


def says(model: nw.Model, prompt: str, answer: str) -> tuple[bool, str]:
    """Whether greedy generation begins with the answer as whole words, and what it says."""
    run = model.run(prompt=prompt, max_new_tokens=len(target_ids(model, answer)) + 1, chat=False)
    rest = run.text.removeprefix(answer.strip())
    return run.text.startswith(answer.strip()) and not rest[:1].isalpha(), run.text


def known(model: nw.Model, cases: Sequence[FactCase]) -> dict[str, tuple[bool, bool, str]]:
    """By id: whether the true answer is forced, whether it is said freely, and what is said."""
    questions = {case.id: (case.fact.text, str(case.fact.target_true)) for case in cases}
    right = forced(model, questions.values())
    return {name: (right[question], *says(model, *question)) for name, question in questions.items()}


def probes(case: FactCase) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """The prompts of a case by kind, each with the answers that an unedited model would give if it knew."""
    asked: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    asked["paraphrases"] = [(prompt, (str(case.fact.target_true),)) for prompt in case.paraphrases]
    for kind, found in case.locality.items():
        asked[kind] = [(probe.prompt, probe.answers) for probe in found]
    asked["already"] = [(probe.prompt, probe.answers) for found in case.portability.values() for probe in found]
    return asked


def answered(model: nw.Model, cases: Sequence[FactCase]) -> dict[str, dict[str, list[bool]]]:
    """By id and kind: for each probe whether one of its answers is forced."""
    asked = {case.id: probes(case) for case in cases}
    every = ((p, a) for kinds in asked.values() for found in kinds.values() for p, answers in found for a in answers)
    right = forced(model, every)
    return {
        name: {k: [any(right[p, a] for a in answers) for p, answers in found] for k, found in kinds.items()}
        for name, kinds in asked.items()
    }


def table(rows: dict[str, list[str]], headings: Sequence[str]) -> str:
    lines = ["| relation | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(row) + " |" for name, row in rows.items())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin-text", help="any name or folder that neuronwise.load opens")
    parser.add_argument("--least", type=int, default=60, help="how many facts have to be known (exit status)")
    parser.add_argument("--facts-only", action="store_true", help="leave the probes out")
    parser.add_argument("--out", type=Path, help="write what was found, by fact, to this JSON file")
    options = parser.parse_args()

    model, cases = nw.load(options.model), nw.load_facts("shipped").cases
    relations = {record["id"]: record["relation"] for record in json.loads(SHIPPED_FILE.read_text(encoding="utf-8"))}
    facts = known(model, cases)
    right = {} if options.facts_only else answered(model, cases)
    kinds = [] if options.facts_only else ["paraphrases", "relation_specificity", "forgetfulness", "neighborhood"]
    kinds += ["already"] if kinds else []
    rows: dict[str, list[str]] = {}
    for relation in [*dict.fromkeys(relations.values()), "all"]:
        names = [case.id for case in cases if relation in ("all", relations[case.id])]
        counts = [
            sum(hits) for hits in zip(*[(f, s, f and s) for f, s, _ in map(facts.__getitem__, names)], strict=True)
        ]
        row = [str(len(names)), *map(str, counts)]
        for kind in kinds:
            hits = [hit for name in names for hit in right[name].get(kind, [])]
            row.append(f"{sum(hits)}/{len(hits)}" if hits else "–")
        rows[relation] = row
    print(table(rows, ["facts", "forced", "free", "known", *(kind.replace("_", " ") for kind in kinds)]))
    for name, (is_forced, is_said, text) in facts.items():
        if not (is_forced and is_said):
            print(f"not known: {name}: the model says {text!r}")
    for case in cases if right else ():
        said = [p for (p, _), hit in zip(probes(case)["already"], right[case.id]["already"], strict=True) if hit]
        for prompt in said:
            print(f"already: {case.id}: {prompt}")
    if options.out:
        found = {n: {"forced": f, "free": s, "text": t, **right.get(n, {})} for n, (f, s, t) in facts.items()}
        write_json(options.out, found)
    count = int(rows["all"][3])
    if count < options.least:
        print(f"Only {count} facts are known; at least {options.least} are needed.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
