"""What everything costs on one GPU, in at most eight minutes and one JSON file; needs nothing from a network.

python benchmarks/accelerator.py --out accelerator.json
python benchmarks/accelerator.py --tiny --out accelerator.json    # the same in a minute or two, on a CPU

Random weights in the shapes of LLaVA-1.5-7B and Qwen2.5-VL-7B, in bfloat16, that step through a made-up vocabulary.
First a small model checks that bfloat16 on the device says the tokens and finds the neurons of float32. Each task runs
once and is written at once, with the seconds it took, its first use of the device included, and its peak of memory over
the weights; a task that fails is an entry with its error, and tasks for which the time no longer suffices are named. In
random weights a fact means nothing: only the cost counts.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import neuronwise as nw
from find import weight_bytes
from large import fact_word, find, made_up_fact
from neuronwise.edit.fine.specific import fine_specific
from neuronwise.edit.verdict import without_verdict
from neuronwise.files import write_json
from neuronwise.measure.cost import costs
from shapes import random_model

MINUTES = 8
SHAPES = ("llava-1.5-7b", "qwen2.5-vl-7b")
TINY = ("tiny", "tiny-qwen")
TOP = 100
Task = Callable[[], object]


def photos(count: int, side: int = 336) -> list[Image.Image]:
    """Noise in blocks, the same in every run."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 255, (count, 12, 12, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((side, side), Image.Resampling.NEAREST) for one in blocks]


def agreement(shape: str, device: str, tokens: int) -> dict[str, Any]:
    """How far bfloat16 on the device agrees with float32 on the CPU: tokens said, and the first word's neurons."""
    exact, rounded = random_model(shape, torch.float32, "cpu"), random_model(shape, torch.float32, "cpu")
    rounded = nw.Model(rounded.module.to(device, torch.bfloat16), rounded.processor)
    pictures = photos(4)
    runs = [model.run_many(pictures, max_new_tokens=tokens, batch_size=4) for model in (exact, rounded)]
    same = sum(
        a == b for one, two in zip(*runs, strict=True) for a, b in zip(one.output_ids, two.output_ids, strict=True)
    )
    shared = []
    for pair in zip(*runs, strict=True):
        token = pair[0].output_ids[0]
        sets = [set(nw.locate(run.model, run, target=token, position=0, top=TOP).neurons) for run in pair]
        shared.append(len(sets[0] & sets[1]) / TOP)
    return {"shape": shape, "same tokens": same, "of": tokens * len(pictures), "shared of the top 100": shared}


def tasks(model: nw.Model, folder: Path, indexed: int, sizes: tuple[int, ...], tokens: int) -> dict[str, Task]:
    """What is measured, in this order; ``folder`` is empty and gets the photos to index."""
    pictures = photos(max(*sizes, indexed))
    run = model.run(pictures[0], max_new_tokens=tokens, heat=True)
    word = run.concepts[0].word
    located = nw.locate(model, run, word, top=50)
    fact = made_up_fact(model)
    freeze: dict[str, Any] = {"freeze_last": 1} if model.num_layers <= 3 else {}
    other = model.decode_ids([fact_word(model, fact)]).strip()
    texts: dict[str, Any] = {"texts": 2, "text_tokens": 8, "n": 20} if model.num_layers <= 3 else {}

    def batch(size: int) -> Task:
        return lambda: model.run_many(pictures[:size], max_new_tokens=tokens, batch_size=size)

    def index() -> object:
        return nw.Index.build(
            model, folder, out=folder / "index", max_new_tokens=tokens, batch_size=max(sizes), save_every=600
        )

    for number, picture in enumerate(pictures[:indexed]):
        picture.save(folder / f"{number:03}.png")
    return {
        "generate": lambda: model.run_many(pictures[:1], max_new_tokens=tokens, record=False),
        "find and heatmaps": lambda: find(model, pictures[0], tokens),
        **{f"batch of {size}": batch(size) for size in sizes},
        "fine": lambda: nw.fine(model, fact, **freeze),
        "fine_specific, moments included": lambda: fine_specific(model, fact, **texts),
        "swap": lambda: nw.swap(model, run, word, other, neurons=located, generate=False, steps=10),
        "two_stage": lambda: nw.locate(model, run, word, method="two_stage", inpainted=pictures[1]),
        f"index of {indexed} photos": index,
    }


def measure(
    model: nw.Model, made: dict[str, Task], left: Callable[[], float], found: dict[str, Any], keep: Callable[[], None]
) -> None:
    """Put seconds and peak memory of each task into ``found``; ``keep`` is called after each."""
    found |= {"weights": weight_bytes(model), "neurons": model.num_neurons, "tasks": {}}
    for name, task in made.items():
        if left() <= 0:
            found["tasks"][name] = {"left out": "no time left"}
            continue
        try:
            with without_verdict(), costs(model) as cost:
                task()
            found["tasks"][name] = {"seconds": cost.seconds, "peak over the weights": cost.peak_memory}
        except Exception as error:  # the others are still worth measuring
            found["tasks"][name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"{name}: {found['tasks'][name]}", file=sys.stderr, flush=True)
        keep()


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Write the file and return what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("accelerator.json"))
    parser.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU, to try the script")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin no task after so many")
    options = parser.parse_args(arguments)
    device, start = "cpu" if options.tiny else "cuda", time.monotonic()
    if not options.tiny and not torch.cuda.is_available():
        raise SystemExit("accelerator: there is no GPU here; --tiny tries the script without one.")
    sizes, indexed, tokens = ((2, 4), 4, 4) if options.tiny else ((16, 64), 256, 8)
    name = "CPU" if options.tiny else torch.cuda.get_device_name()
    result: dict[str, Any] = {"device": name, "torch": torch.__version__, "tokens": tokens, "models": {}}

    def keep() -> None:
        write_json(options.out, {**result, "minutes": (time.monotonic() - start) / 60})

    result["agreement"] = agreement("tiny" if options.tiny else "llava-0.5b", device, tokens)
    keep()
    for shape in TINY if options.tiny else SHAPES:
        model = random_model(shape, torch.bfloat16, device)
        with tempfile.TemporaryDirectory() as folder:
            made = tasks(model, Path(folder), indexed, sizes, tokens)
            result["models"][shape] = {}
            measure(
                model, made, lambda: options.minutes * 60 - (time.monotonic() - start), result["models"][shape], keep
            )
        del model, made
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return result


if __name__ == "__main__":
    main()
