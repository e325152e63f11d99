"""The frontier between an edit that carries far and one that leaves the rest alone: recipes on the same facts.

    python benchmarks/specific.py DATA/counterfact-2000.json --known-facts DATA/known-facts.json --out RUN
    python benchmarks/specific.py DATA/counterfact-2000.json --known-facts DATA/known-facts.json --out RUN --part held

Facts: records (EasyEdit's field names) whose present answer the model gives by itself, in an order drawn with seed 0.
The first 40 are those on which recipes were tried; of the others the first 20 were looked at once, for one recipe, and
the rest ("held") is for the recipe as it stands. "fresh" are known facts of seven relations about other subjects, with
another object of the relation as target, one of our own paraphrases (`AGAIN`), which all ask for the relation, and a
prompt of the relation about another subject as neighborhood. One edit at a time, nothing kept. Figures, means over
facts with 95 % bootstrap intervals:

- success: share of the target's tokens that are likeliest behind the prompt; all: the share of facts where all are,
  which is the same as greedy generation beginning with the target;
- paraphrase: the same share behind `rephrase_prompt`; once more for those that ask for the relation in other words
  (`ASKING`, judged by reading them, not by results) and for the others, which go on about something else that only
  has to do with it ("is surrounded by restaurants including");
- other facts: share of prompts of 14 known facts about other subjects whose next token is the same as before;
- neighborhood: the same for `locality_prompt`; same template: for up to 2 prompts with another subject in the same
  words; same subject: for `ASIDE`, texts that only name the subject.

Seconds are of processor time. It is resumable: what RUN/rows.jsonl holds is not done again.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import neuronwise as nw
from neuronwise.edit.memory.passages import Passage, side_by_side
from neuronwise.files import write_json
from neuronwise.measure.bootstrap import mean_interval
from neuronwise.model.hooks import Hooks, first_tensor, replace_first

SIDES: dict[str, dict[str, Any]] = {
    "published, rate 5e-3": {"rate": 5e-3},
    "published, rate 1e-3": {"rate": 1e-3},
    "specific": {"recipe": "specific"},
    "specific, asides": {"recipe": "specific", "asides": ("I like {} because", "It is well known that {} is")},
    "specific, lower goals": {"recipe": "specific", "goal": 3.0, "prefixed_goal": 1.5, "enough": 0.9,
                              "prefixed_enough": 0.7},
    "specific, n=50": {"recipe": "specific", "n": 50},
}  # fmt: skip
ASIDE = ("I once read that {} was", "Most people think of {} as")
FIGURES = {
    "success": "success", "all": "all tokens", "paraphrase": "paraphrase", "others": "other facts",
    "neighborhood": "neighborhood", "template": "same template", "subject": "same subject",
}  # fmt: skip
ASKING = re.compile(
    r"(overseen by|created by|developed by|people speak|who speak|affiliated with|follower of|native speaker of"
    r"|they understand|is from, people speak the language of|mother tongue( of .*)? is|language used by people in .* is"
    r"|, in)$"
)
PARAPHRASES = {"asking": "paraphrase, asking", "beside": "paraphrase, other"}
AGAIN = {
    "P17": ("{} is a place in the country of", "The country in which {} lies is"),
    "P20": ("{} passed away in the city of", "The city where {} died is"),
    "P30": ("{} is a part of the continent of", "The continent on which {} lies is"),
    "P36": ("The capital city of {} is", "The government of {} has its seat in its capital,"),
    "P37": ("The official language of {} is", "The people of {} speak"),
    "P103": ("The mother tongue of {} is", "{} is a native speaker of"),
    "P140": ("The religion of {} is", "{} is a follower of"),
}
TRIED, LOOKED_AT = 40, 20
OTHERS, TEMPLATE = 14, 2

Item = tuple[str, list[int]]  # a prompt and the tokens that are forced behind it (none: only the next one counts)


class Asker:
    """What a model says to many prompts, side by side."""

    def __init__(self, model: nw.Model) -> None:
        self.model = model

    def ids(self, prompt: str) -> list[int]:
        return self.model.prepare(prompt=prompt, chat=False)[0].input_ids

    def target(self, text: str) -> list[int]:
        return self.model.tokenizer(f" {text.strip()}", add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def says(self, items: Sequence[Item], size: int = 32) -> list[list[int]]:
        """The likeliest token at every forced one's place, or the next one."""
        found: dict[int, list[int]] = {}
        rows = [(self.ids(prompt), tokens) for prompt, tokens in items]
        order = sorted(range(len(rows)), key=lambda number: len(rows[number][0]) + len(rows[number][1]))
        for start in range(0, len(order), size):
            group = order[start : start + size]
            batch = side_by_side(self.model, [Passage((*rows[n][0], *rows[n][1][:-1]), 0) for n in group])
            spots = [
                (place, len(rows[n][0]) - 1 + k)
                for place, n in enumerate(group)
                for k in range(max(1, len(rows[n][1])))
            ]
            with Hooks() as hooks:
                hooks.before(self.model.head, _only(spots))
                best = self.model.forward(batch.inputs)[0].argmax(-1).tolist()
            for (place, _), token in zip(spots, best, strict=True):
                found.setdefault(group[place], []).append(token)
        return [found[number] for number in range(len(rows))]


def _only(spots: Sequence[tuple[int, int]]) -> Any:
    items, rows = (list(part) for part in zip(*spots, strict=True))

    def before(module: Any, args: Any, kwargs: Any) -> Any:
        return replace_first(args, kwargs, first_tensor(args, kwargs)[items, rows].unsqueeze(0))

    return before


def known(ask: Asker, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """Numbers of the prompts whose answer is likeliest at every token."""
    targets = [ask.target(answer) for _, answer in pairs]
    said = ask.says([(prompt, target) for (prompt, _), target in zip(pairs, targets, strict=True)], 64)
    return [number for number, target in enumerate(targets) if said[number] == target]


def template(row: dict[str, Any]) -> str:
    return row["prompt"].replace(row["subject"], "{}")


def fresh(others: list[dict[str, Any]], edited: set[str]) -> list[dict[str, Any]]:
    """Known facts about subjects that are none of ``edited``, as records, in an order drawn with seed 0."""
    generator = random.Random(0)
    pool = [row for row in others if row["relation_id"] in AGAIN and row["subject"] not in edited]
    found = []
    for row in pool:
        same = [other for other in pool if other["relation_id"] == row["relation_id"]]
        near = [other for other in same if other["subject"] != row["subject"]]
        targets = sorted({other["attribute"] for other in near} - {row["attribute"]})
        again = [template.format(row["subject"]) for template in AGAIN[row["relation_id"]]]
        found.append({
            "prompt": row["prompt"], "subject": row["subject"], "ground_truth": row["attribute"],
            "target_new": generator.choice(targets), "locality_prompt": generator.choice(near)["prompt"],
            "rephrase_prompt": generator.choice([text for text in again if text != row["prompt"]]),
        })  # fmt: skip
    generator.shuffle(found)
    return found


def probes(rows: list[dict[str, Any]], others: list[dict[str, Any]], chosen: list[int]) -> dict[int, dict[str, Any]]:
    """For each fact the prompts that shall stay: of other facts, and of other subjects in its own words."""
    generator = random.Random(1)
    subjects = {rows[number]["subject"] for number in chosen}
    away = [row["prompt"] for row in others if row["subject"] not in subjects]
    generator.shuffle(away)
    found = {}
    for number in chosen:
        row = rows[number]
        near = {
            r["prompt"] for r in [*rows, *others] if template(r) == template(row) and r["subject"] != row["subject"]
        }
        like = sorted(near)
        generator.shuffle(like)
        found[number] = {"others": away[:OTHERS], "template": like[:TEMPLATE], "neighborhood": [row["locality_prompt"]],
                         "subject": [aside.format(row["subject"]) for aside in ASIDE]}  # fmt: skip
    return found


def asked(ask: Asker, row: dict[str, Any], kept: dict[str, list[str]]) -> list[Item]:
    target = ask.target(row["target_new"])
    items: list[Item] = [(row["prompt"], target), (row["rephrase_prompt"], target)]
    return items + [(prompt, []) for prompts in kept.values() for prompt in prompts]


def figures(
    target: list[int], kept: dict[str, list[str]], before: list[list[int]], after: list[list[int]]
) -> dict[str, Any]:
    """What the edited model says to ``asked`` beside what the model said."""
    hits = [[a == b for a, b in zip(after[k], target, strict=True)] for k in (0, 1)]
    same = iter([float(a == b) for a, b in zip(after[2:], before[2:], strict=True)])
    stayed = {name: [next(same) for _ in prompts] for name, prompts in kept.items()}
    return {
        "success": sum(hits[0]) / len(target), "all": float(all(hits[0])), "paraphrase": sum(hits[1]) / len(target),
        **{name: sum(values) / len(values) if values else None for name, values in stayed.items()},
    }  # fmt: skip


def run(ask: Asker, rows: list[dict[str, Any]], kept: dict[int, Any], options: argparse.Namespace) -> None:
    path = options.out / "rows.jsonl"
    done = {(row["side"], row["fact"]) for row in read_rows(path)}
    for number in kept:
        row = rows[number]
        fact = nw.Fact(row["prompt"], row["subject"], row["target_new"], row["ground_truth"])
        sides = [side for side in options.sides if (side, number) not in done]
        items = asked(ask, row, kept[number])
        before = ask.says(items) if sides else []
        for side in sides:
            start = time.process_time()
            edit = nw.fine(ask.model, fact, **SIDES[side])
            seconds = time.process_time() - start
            with edit.applied(ask.model):
                after = ask.says(items)
            found = figures(ask.target(row["target_new"]), kept[number], before, after)
            line = {"side": side, "fact": number, "part": options.part, **found, "steps": edit.record["steps"],
                    "seconds": seconds}  # fmt: skip
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def split(row: dict[str, Any], facts: list[dict[str, Any]]) -> dict[str, Any]:
    """The paraphrase's figure under the kind that it is of."""
    asking = row["part"] == "fresh" or bool(ASKING.search(facts[row["fact"]]["rephrase_prompt"].strip()))
    return {"asking": row["paraphrase"] if asking else None, "beside": None if asking else row["paraphrase"]}


def table(rows: list[dict[str, Any]], part: str, facts: list[dict[str, Any]]) -> str:
    sides = [side for side in SIDES if any(row["side"] == side and row["part"] == part for row in rows)]
    names = {**FIGURES, **PARAPHRASES}
    lines = [f"| {part} | facts | {' | '.join(names.values())} | steps, median | seconds, median |"]
    lines.append("|" + "---|" * (len(names) + 4))
    for side in sides:
        own = [{**row, **split(row, facts)} for row in rows if row["side"] == side and row["part"] == part]
        cells = []
        for name in names:
            mean = mean_interval([row[name] for row in own])
            count = f" of {mean.n}" if mean is not None and name in PARAPHRASES else ""
            cells.append("" if mean is None else f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]{count}")
        middle = [sorted(row[name] for row in own)[len(own) // 2] for name in ("steps", "seconds")]
        lines.append(f"| {side} | {len(own)} | {' | '.join(cells)} | {middle[0]} | {middle[1]:.1f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("facts_file", type=Path)
    parser.add_argument("--known-facts", type=Path, required=True, help="prompts of other facts, with `attribute`")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=["tried", "held", "fresh"], default="tried")
    parser.add_argument("--facts", type=int, help="the first so many of the part")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--model", default="builtin-text")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    ask = Asker(nw.load(options.model))
    rows, others = (json.loads(path.read_text()) for path in (options.facts_file, options.known_facts))
    cached = options.out / "known.json"
    if not cached.is_file():
        pairs = [[(r["prompt"], r["ground_truth"]) for r in rows], [(r["prompt"], r["attribute"]) for r in others]]
        write_json(cached, [known(ask, pair) for pair in pairs])
    ours, theirs = json.loads(cached.read_text())
    print(f"known: {len(ours)} of {len(rows)} facts, {len(theirs)} of {len(others)} others", file=sys.stderr)
    order = list(ours)
    random.Random(0).shuffle(order)
    away = [others[n] for n in theirs]
    if options.part == "fresh":
        drawn, before = fresh(away, {rows[n]["subject"] for n in ours})[: options.facts], len(rows)
        part = [before + place for place in range(len(drawn))]
        kept = {before + place: kept for place, kept in probes(drawn, away, list(range(len(drawn)))).items()}
        rows = rows + drawn
    else:
        part = order[:TRIED] if options.part == "tried" else order[TRIED + LOOKED_AT :]
        part = part[: options.facts]
        kept = probes([rows[n] for n in ours], away, list(range(len(ours))))
        kept = {number: kept[ours.index(number)] for number in part}
    done = {(row["side"], row["fact"]) for row in read_rows(options.out / "rows.jsonl")}
    to_do = {side for side in options.sides for number in part if (side, number) not in done}
    if any(SIDES[side].get("recipe") == "specific" for side in to_do):
        first = rows[ours[0]]  # the moments are made once for a model; what they cost is told apart
        start = time.process_time()
        nw.fine(ask.model, nw.Fact(first["prompt"], first["subject"], first["target_new"]), recipe="specific", steps=1)
        print(f"once: {time.process_time() - start:.0f} seconds", file=sys.stderr)
    run(ask, rows, kept, options)
    print(table(read_rows(options.out / "rows.jsonl"), options.part, rows) + "\n")
    true = ask.says([(rows[n]["rephrase_prompt"], ask.target(rows[n]["ground_truth"])) for n in part])
    hits = [
        sum(a == b for a, b in zip(said, ask.target(rows[n]["ground_truth"]), strict=True)) / len(said)
        for said, n in zip(true, part, strict=True)
    ]
    mean = mean_interval(hits)
    assert mean is not None
    print(f"The unedited model gives its true answer behind {mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}] of the "
          f"{mean.n} paraphrases.")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
