"""One table of speed: every aim as a ratio of processor time within one run, on one thread.

    python benchmarks/speed.py --facts DATA/counterfact-2000.json --out docs/results/speed.md

Sides alternate; a ratio is that of their medians, so that other work on the machine counts little. The built-in model,
scikit-image's photos and shipped texts; ``--skip`` leaves parts out.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import batches
import cold_start
import edit as edits
import find
import neuronwise as nw
from neuronwise.data.texts import read_lines
from neuronwise.files import write_text
from neuronwise.images import open_image
from neuronwise.locate.scores import Scores
from neuronwise.model.last_position import LastPosition
from neuronwise.model.passes import edit, frozen_parameters

PROMPTS = {
    "The capital of France is": " Paris",
    "Water is made of hydrogen and": " oxygen",
    "The dog sat on the": " floor",
}


@dataclass
class Row:
    """``what`` over ``against``: the ratio reached, the aim, and what else is to be known."""

    what: str
    against: str
    ratio: float
    aim: str
    note: str = ""


def middle(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each side, in alternating turns after one that is not counted."""
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            start = time.process_time()
            side()
            if turn:
                turns[name].append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in turns.items()}


def finding(repeats: int) -> list[Row]:
    import skimage

    model, folder = nw.load("builtin"), Path(skimage.__file__).parent / "data"
    image = open_image(folder / "chelsea.png")
    sides: dict[str, Callable[[], object]] = {
        "plain": lambda: find.plain(model, image, 50),
        "find": lambda: find.find(model, image, 50),
        find.AGAIN: lambda: find.find(model, image, 50, anew=False),
    }
    took = middle(sides, repeats)
    memory = {name: find.peak_memory(side) or 0 for name, side in sides.items()}
    rows = []
    for name in ("find", find.AGAIN):
        extra = (memory[name] - memory["plain"]) / find.weight_bytes(model)
        note = f"memory over the weights: {extra:+.1%} of them beyond plain generate's"
        rows.append(Row(name, "plain generate", took[name] / took["plain"], "≤ 1.10", note))
    return rows


def batching(repeats: int) -> list[Row]:
    model = nw.load("builtin")
    prompts = list(read_lines(batches.OPENINGS).values())[:16]
    rows = []
    for name, work, aim in (
        ("texts", batches.texts(model, prompts, 10), "≤ 0.35"),
        ("photos", batches.captions(model, batches.pictures(None, 16), 10), "≤ 0.60"),
    ):
        found = batches.measure(model, work, 16, repeats)
        note = f"same tokens {found['same tokens']} of {found['of']}, same 100 neurons {found['same neurons']}"
        rows.append(Row(f"16 {name} in a batch", "one by one", found["ratio"], aim, note))
    return rows


def layer_by_layer(model: nw.Model, run: nw.Run, token: int, steps: int = 20) -> Scores:
    """Integrated gradients by their definition, a pass of ``steps`` copies through the model for each layer."""
    last, acts, scores = LastPosition(model, run.forced_inputs()), run.activations(0), Scores()
    factors = torch.arange(1, steps + 1).unsqueeze(1) / steps

    def scaled(part: Tensor, leaves: list[Tensor], out: Tensor) -> Tensor:
        leaves.append((factors * part).requires_grad_(True))
        rows = out.reshape(steps, -1, out.shape[-1]).clone()
        rows[:, -1] += leaves[-1] - part
        return rows.reshape(out.shape)

    with frozen_parameters(model.module):
        for block in model.blocks:
            (writer,) = block.dense
            a, leaves = acts.dense[block.layer][0].float(), list[Tensor]()
            change = functools.partial(scaled, writer.vectors.float() @ a, leaves)
            with edit(writer.module, change, within=block.module):
                chances = last.evaluate(steps, grad=True).softmax(-1)
                (gradient,) = torch.autograd.grad(chances[:, token].sum(), leaves)
            scores.put(writer, a * writer.project(gradient.sum(0, keepdim=True))[0] / steps, a)
    return scores


def gradients(repeats: int) -> list[Row]:
    model, plain, ours, worst = nw.load("builtin-text"), [], [], 0.0
    for prompt, target in PROMPTS.items():
        run = model.run(prompt=prompt, max_new_tokens=0, chat=False)
        token = model.tokenizer.encode(target)[0]
        sides: dict[str, Callable[[], Scores]] = {
            "plain": functools.partial(layer_by_layer, model, run, token),
            "ours": functools.partial(nw.scores, model, run, target=token, method="integrated_gradients"),
        }
        one, two = (torch.cat(list(side().values())) for side in sides.values())
        worst = max(worst, float((one - two).abs().max() / one.abs().max()))
        took = middle({**sides}, repeats)
        plain.append(took["plain"])
        ours.append(took["ours"])
    note = f"the same scores to {worst:.0e} of the largest"
    return [Row("layer by layer", "integrated_gradients", sum(plain) / sum(ours), "≥ 5", note)]


def editing(path: Path, count: int) -> list[Row]:
    model = nw.load("builtin-text")
    facts, records = edits.known(model, path, count)
    sides = {name: edits.ALONE[name] for name in ("released", "fine", "fine, start=search")}
    figures = {name: edits.Figures() for name in sides}
    for number in range(len(facts)):
        for name, side in sides.items():
            edits.turn(model, facts, records, [number], side, figures[name])
    base, rows = figures["released"], []
    for name in ("fine", "fine, start=search"):
        one = figures[name]
        counts = [f"{sum(found)}/{len(found)}" for found in (one.success, one.paraphrase, one.unchanged)]
        before = [f"{sum(found)}/{len(found)}" for found in (base.success, base.paraphrase, base.unchanged)]
        note = f"success, paraphrase, other subjects unchanged: {', '.join(counts)}; released {', '.join(before)}"
        rows.append(Row("fine as released", name, sum(base.seconds) / sum(one.seconds), "≥ 5", note))
    return rows


def starting(repeats: int) -> list[Row]:
    found = cold_start.measure(cold_start.builtin_folder(), repeats)
    plain, ours = (statistics.median(turns) for turns in found.values())
    return [
        Row(
            "find --text from a cold start",
            "importing and loading alone",
            ours / plain,
            "≤ 1.10",
            f"{plain:.1f} s alone",
        )
    ]


def page(rows: list[Row], command: str) -> str:
    """The table as a page."""
    lines = [
        "# Speed", "", "```", command, "```", "",
        "Ratios of processor time within one run, one thread, sides alternating, the ratio of their medians; the "
        f"built-in model, torch {torch.__version__}. A ratio is the time of the first over the time of the second.", "",
        "| | over | ratio | aim | |", "|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row.what} | {row.against} | {row.ratio:.2f} | {row.aim}{'' if reached(row) else ', missed'} | {row.note} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def reached(row: Row) -> bool:
    """Whether the aim is met by the printed ratio."""
    sign, limit = row.aim.split()
    return round(row.ratio, 2) <= float(limit) if sign == "≤" else round(row.ratio, 2) >= float(limit)


def main() -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["find", "batches", "gradients", "edit", "start"]
    parser.add_argument("--skip", nargs="*", default=[], choices=parts)
    parser.add_argument("--facts", type=Path, help="CounterFact in EasyEdit's fields; edits are left out without it")
    parser.add_argument("--count", type=int, default=12, help="facts")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work: dict[str, Callable[[], list[Row]]] = {
        "find": lambda: finding(options.repeats),
        "batches": lambda: batching(options.repeats),
        "gradients": lambda: gradients(options.repeats),
        "edit": lambda: editing(options.facts, options.count) if options.facts else [],
        "start": lambda: starting(options.repeats),
    }
    rows: list[Row] = []
    for name in parts:
        if name not in options.skip:
            rows += work[name]()
            print(f"{name}: done", file=sys.stderr, flush=True)
    given = [f"DATA/{one.name}" if (one := Path(word)).suffix == ".json" else word for word in sys.argv[1:]]
    written = page(rows, " ".join(["python benchmarks/speed.py", *given]))
    print(written)
    if options.out:
        write_text(options.out, written)


if __name__ == "__main__":
    main()
