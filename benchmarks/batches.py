"""What batches save: many texts, and many photos, one by one and in batches, in one run, with the same results.

python benchmarks/batches.py --threads 1          # the built-in model, shipped openings, scikit-image photos
python benchmarks/batches.py --threads 1 --photos DATA/val2017
python benchmarks/batches.py --shape llava-1.5-7b --device cuda   # random weights in that shape, bf16

Everything is recorded, as ``model.run`` does; the first round is not measured. Rounds alternate between the sizes. On a
CPU seconds are those of the processor, which other work on the machine does not lengthen much.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import neuronwise as nw
from neuronwise.data.texts import read_lines
from neuronwise.files import write_json
from neuronwise.images import open_image
from shapes import TEXT, random_model

OPENINGS = Path(nw.__file__).parent / "data" / "openings.txt"
PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "page.png", "retina.jpg",
            "coins.png", "camera.png", "hubble_deep_field.jpg", "horse.png", "moon.png", "clock_motion.png",
            "motorcycle_right.png", "text.png", "color.png")  # fmt: skip
Work = Callable[[int], list[nw.Run]]


def cost(work: Callable[[], Any]) -> float:
    """Seconds of the processor, or on an accelerator of the clock."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def difference(one: nw.Run, other: nw.Run) -> float:
    """The largest difference of recorded activations, by the largest activation of the layer at that token."""
    worst = 0.0
    for mine, theirs in zip(one.steps, other.steps, strict=True):
        for layer, rows in mine.dense.items():
            scale = max(1.0, float(rows.float().abs().max()))
            worst = max(worst, float((rows.float() - theirs.dense[layer].float()).abs().max()) / scale)
    return worst


def same(model: nw.Model, alone: Sequence[nw.Run], together: Sequence[nw.Run]) -> dict[str, Any]:
    """How far the runs agree: their tokens, and of those that do their activations and the first word's neurons."""
    pairs = [(a, b) for a, b in zip(alone, together, strict=True) if a.output_ids == b.output_ids]
    neurons = [
        [nw.locate(model, run, target=a.output_ids[0], position=0, top=100).neurons for run in (a, b)]
        for a, b in pairs
        if a.output_ids
    ]
    return {
        "same tokens": len(pairs),
        "of": len(alone),
        "same neurons": sum(set(a) == set(b) for a, b in neurons),
        "activations": max((difference(a, b) for a, b in pairs), default=0.0),
    }


def measure(model: nw.Model, work: Work, size: int, repeats: int) -> dict[str, Any]:
    """Seconds of each round one by one and in batches, and how far the results agree."""
    result = same(model, work(1), work(size))
    times: dict[str, list[float]] = {"one by one": [], "in batches": []}
    for _ in range(repeats):
        for name, members in zip(times, (1, size), strict=True):
            times[name].append(cost(lambda members=members: work(members)))
    ratios = [a / b for a, b in zip(times["in batches"], times["one by one"], strict=True)]
    return {**result, "seconds": times, "ratio": statistics.median(ratios), "ratios": ratios}


def texts(model: nw.Model, prompts: Sequence[str], tokens: int) -> Work:
    return lambda size: model.run_many(prompts=prompts, max_new_tokens=tokens, chat=False, batch_size=size)


def captions(model: nw.Model, files: Sequence[Path], tokens: int) -> Work:
    photos = [open_image(file) for file in files]
    return lambda size: model.run_many(photos, max_new_tokens=tokens, batch_size=size)


def table(results: dict[str, dict[str, Any]], size: int) -> str:
    lines = [
        f"| | one by one, s | in batches of {size}, s | ratio | same tokens | same neurons | activations differ by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        alone, together = (statistics.median(found["seconds"][key]) for key in ("one by one", "in batches"))
        spread = f"{found['ratio']:.2f} ({min(found['ratios']):.2f}–{max(found['ratios']):.2f})"
        lines.append(
            f"| {found['of']} {name} | {alone:.1f} | {together:.1f} | {spread} | {found['same tokens']} of "
            f"{found['of']} | {found['same neurons']} of {found['same tokens']} | {found['activations']:.0e} |"
        )
    return "\n".join(lines)


def pictures(folder: Path | None, count: int) -> list[Path]:
    if folder is not None:
        return sorted(file for file in folder.rglob("*") if file.suffix in (".jpg", ".png"))[:count]
    import skimage

    return [Path(skimage.__file__).parent / "data" / name for name in PICTURES][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description="What batches save, for texts and for photos.")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--shape", choices=sorted(TEXT), help="a random model of that shape in place of --model")
    parser.add_argument("--device", default=None)
    parser.add_argument("--photos", type=Path, help="a folder of photos; scikit-image's when left out")
    parser.add_argument("--count", type=int, nargs=2, default=(32, 16), help="how many texts and photos")
    parser.add_argument("--size", type=int, default=16, help="members of a batch")
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="torch threads; as torch finds it by default")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.shape:
        model = random_model(arguments.shape, torch.bfloat16, arguments.device or "cpu")
    else:
        model = nw.load(arguments.model, device_map=arguments.device)
    prompts = list(read_lines(OPENINGS).values())[: arguments.count[0]]
    files = pictures(arguments.photos, arguments.count[1])
    works = {
        "texts": texts(model, prompts, arguments.tokens),
        "photos": captions(model, files, arguments.tokens),
    }
    results = {name: measure(model, work, arguments.size, arguments.repeats) for name, work in works.items()}
    print(table(results, arguments.size))
    if arguments.json:
        write_json(arguments.json, results)


if __name__ == "__main__":
    main()
