"""What an edit by FiNE costs: `fine` against the published procedure done literally, in one run.

    python benchmarks/edit.py DATA/counterfact-2000.json --facts 20 --threads 1

Facts: records with `prompt`, `subject`, `ground_truth` and `target_new` (EasyEdit's field names) whose present answer
the model gives by itself. All sides stop by the same rule and share the loss; all but "released" edit the same
neurons. Fact by fact every side has its turn; those that learn several facts together have theirs after each group.
Seconds are of processor time, so that other work on the machine disturbs them little. Memory is measured in a process
of its own for each side, after a first edit and over two steps (later ones take no more): the peak of all tensors'
bytes as the allocator counts them, the same in every run, and the peak of what is resident over what was before. Both
are medians over three facts, or for eight together a share of their peak.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import neuronwise as nw
from find import peak_memory
from neuronwise.edit import Edit
from neuronwise.edit.fine import PRESETS, fine_each
from neuronwise.edit.presets import chosen
from neuronwise.edit.verdict import without_verdict
from neuronwise.files import write_json
from neuronwise.model.prompt import exact_tokens
from published_fine import literal

Side = Callable[[nw.Model, Sequence[nw.Fact], int], list[tuple[Edit, int]]]  # the last number: steps at most


def published(variant: str) -> Side:
    def side(model: nw.Model, facts: Sequence[nw.Fact], steps: int) -> list[tuple[Edit, int]]:
        settings = replace(chosen(model, PRESETS).settings, steps=steps)
        return [literal(model, fact, settings, variant) for fact in facts]

    return side


def ours(start: str) -> Side:
    def side(model: nw.Model, facts: Sequence[nw.Fact], steps: int) -> list[tuple[Edit, int]]:
        with without_verdict():  # the published code gives none
            edits = fine_each(model, facts, start=start, steps=steps)
        return [(edit, edit.record["steps"]) for edit in edits]

    return side


ALONE: dict[str, Side] = {
    "released": published("released"),
    "needed work": published("needed"),
    "fine": ours("zero"),
    "fine, start=search": ours("search"),
}
TOGETHER: dict[str, Side] = {
    "fine, 8 together": ours("zero"),
    "fine, start=search, 8 together": ours("search"),
}
GROUP = 8
STEPS = 2  # for memory
BASELINE = "needed work"


def first_choice(model: nw.Model, prompt: str) -> int:
    with torch.no_grad():
        return int(model.forward(model.prepare(prompt=prompt, chat=False)[0].inputs, rows=[-1])[0, -1].argmax())


def first_token(model: nw.Model, target: str) -> int:
    return exact_tokens(model.tokenizer, model.vocabulary_size, f" {target.strip()}").token_id


def known(model: nw.Model, path: Path, count: int, skip: int = 0) -> tuple[list[nw.Fact], list[dict[str, str]]]:
    """``count`` facts whose answer the model gives by itself, behind the first ``skip`` of them, and their records."""
    rows: list[dict[str, str]] = []
    for row in json.loads(path.read_text(encoding="utf-8")):
        if first_choice(model, row["prompt"]) == first_token(model, row["ground_truth"]):
            rows.append(row)
            if len(rows) == skip + count:
                break
    return _facts(rows[skip:]), rows[skip:]


def _facts(rows: list[dict[str, str]]) -> list[nw.Fact]:
    return [nw.Fact(row["prompt"], row["subject"], row["target_new"], row["ground_truth"]) for row in rows]


class Figures:
    """What one side did, fact by fact."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.steps: list[int] = []
        self.success: list[bool] = []
        self.paraphrase: list[bool] = []
        self.unchanged: list[bool] = []

    def add(self, model: nw.Model, fact: nw.Fact, row: dict[str, str], edit: Edit, steps: int, seconds: float) -> None:
        wanted, other = first_token(model, fact.target_new), row.get("locality_prompt")
        before = first_choice(model, other) if other else None
        with edit.applied(model):
            self.success.append(first_choice(model, fact.text) == wanted)
            if row.get("rephrase_prompt"):
                self.paraphrase.append(first_choice(model, row["rephrase_prompt"]) == wanted)
            if other:
                self.unchanged.append(first_choice(model, other) == before)
        self.seconds.append(seconds)
        self.steps.append(steps)


def compare(
    model: nw.Model, facts: list[nw.Fact], rows: list[dict[str, str]], sides: Sequence[str]
) -> dict[str, Figures]:
    figures = {name: Figures() for name in sides}
    for start in range(0, len(facts), GROUP):
        group = range(start, min(start + GROUP, len(facts)))
        for number in group:
            for name in (name for name in ALONE if name in figures):
                turn(model, facts, rows, [number], ALONE[name], figures[name])
        for name in (name for name in TOGETHER if name in figures):
            turn(model, facts, rows, list(group), TOGETHER[name], figures[name])
        print(f"{group.stop}/{len(facts)}", file=sys.stderr, flush=True)
    return figures


def turn(
    model: nw.Model,
    facts: list[nw.Fact],
    rows: list[dict[str, str]],
    numbers: list[int],
    side: Side,
    figures: Figures,
) -> None:
    start = time.process_time()
    found = side(model, [facts[number] for number in numbers], chosen(model, PRESETS).settings.steps)
    seconds = (time.process_time() - start) / len(numbers)
    for number, (edit, steps) in zip(numbers, found, strict=True):
        figures.add(model, facts[number], rows[number], edit, steps, seconds)


def memory_of(name: str, rows: list[dict[str, str]], options: argparse.Namespace) -> list[float]:
    """MB of tensors and of what is resident for one fact, in a process that gives freed memory back at once."""
    with tempfile.TemporaryDirectory() as folder:
        known_ones = Path(folder) / "facts.json"
        write_json(known_ones, rows[:GROUP])
        command = [sys.executable, __file__, str(known_ones), "--model", options.model, "--memory", name]
        command += ["--threads", str(torch.get_num_threads())]
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [float(cell) for cell in done.stdout.strip().splitlines()[-1].split()]


def print_memory(model: nw.Model, facts: list[nw.Fact], name: str) -> None:
    side = {**ALONE, **TOGETHER}[name]
    groups = [facts] if name in TOGETHER else [[fact] for fact in facts[-3:]]
    side(model, facts[:1], STEPS)
    resident = [peak_memory(lambda group=group: side(model, group, STEPS)) for group in groups]
    tensors = [tensor_peak(lambda group=group: side(model, group, STEPS)) for group in groups]
    for found in (tensors, resident):
        shares = [float("nan") if one is None else one / len(group) for one, group in zip(found, groups, strict=True)]
        print(f"{statistics.median(shares) / 2**20:.2f}", end=" ")
    print()


def tensor_peak(function: Callable[[], Any]) -> int:
    """Bytes of tensors that are alive together at the worst moment, over what is before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    steps = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    return max(accumulate(size for _, size in steps))


def table(figures: dict[str, Figures], memory: dict[str, list[float]]) -> str:
    base = figures[BASELINE]
    heads = [
        "", "processor seconds an edit, median", "of all, needed work ÷ this", "fact by fact, median (least–most)",
        "steps, median", "success", "paraphrase", "other subjects unchanged",
        *(["MB of tensors a request", "MB resident"] if memory else []),
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, one in figures.items():
        ratios = [a / b for a, b in zip(base.seconds, one.seconds, strict=True)]
        shares = [f"{sum(found)}/{len(found)}" for found in (one.success, one.paraphrase, one.unchanged)]
        each = "" if name in TOGETHER else f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        cells = [
            f"{statistics.median(one.seconds):.2f}", f"{sum(base.seconds) / sum(one.seconds):.2f}", each,
            f"{statistics.median(one.steps):g}", *shares, *(f"{size:.1f}" for size in memory.get(name, [])),
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("facts_file", type=Path)
    parser.add_argument("--model", default="builtin-text")
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--skip", type=int, default=0, help="leave out so many facts at first")
    parser.add_argument("--sides", nargs="*", default=[*ALONE, *TOGETHER], help=f"only these, {BASELINE!r} among them")
    parser.add_argument("--no-memory", action="store_true", help="measure no memory")
    parser.add_argument("--memory", choices=[*ALONE, *TOGETHER], help="print one side's memory only")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = nw.load(options.model)
    if options.memory:
        print_memory(model, _facts(json.loads(options.facts_file.read_text())), options.memory)
        return 0
    facts, rows = known(model, options.facts_file, options.facts, options.skip)
    for side in ALONE.values():
        side(model, facts[:1], STEPS)
    figures = compare(model, facts, rows, options.sides)
    print(f"{len(facts)} facts, {torch.get_num_threads()} threads, torch {torch.__version__}\n", flush=True)
    print(table(figures, {} if options.no_memory else {name: memory_of(name, rows, options) for name in figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
