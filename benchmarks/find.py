"""What finding costs: plain generation, `find` for every noun, and the published procedure, in one run.

python benchmarks/find.py                                        # the built-in model, scikit-image's cat
python benchmarks/find.py --model MODEL --image PHOTO --repeats 7
python benchmarks/find.py --shape llava-1.5-7b --device cuda     # random weights in that shape, bf16

All three get the opened photo and the same prompt, generate greedily and are run once before anything is measured.
Rounds alternate between them. Memory is the peak over what is held before, the weights among it: of the process on a
CPU, of the allocator on an accelerator.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import neuronwise as nw
import published
from neuronwise import read
from neuronwise.files import write_json
from neuronwise.images import open_image
from shapes import TEXT, random_model

SAME_OUTPUT = "published, one map a word"
AGAIN = "find, neurons met before"


def plain(model: nw.Model, image: Image.Image, length: int) -> list[int]:
    """Lay out, generate greedily with the cache, decode; nothing is recorded."""
    prompted = model.prepare(image)[0]
    with torch.no_grad():
        inputs = model.placed(prompted.inputs)
        sequence = model.module.generate(**inputs, do_sample=False, max_new_tokens=length, use_cache=True)[0].tolist()
    ids = sequence[len(prompted.input_ids) :]
    model.decode_ids(ids)
    return ids


def find(model: nw.Model, image: Image.Image, length: int, top: int = 100, *, anew: bool = True) -> read.Finding:
    """Generate while recording; then neurons, what they raise and lower, and a full-size heatmap for every noun.

    ``anew``: as if none of these neurons had been decoded before.
    """
    if anew:
        model.latest(("effects", 10, "cosine"), None, dict)
    run = model.run(image=image, max_new_tokens=length, heat=True)
    found = read.find(model, run, top=top)
    for concept in found.concepts:
        if concept.heat is not None:
            concept.heat.image()
    return found


def literally(model: nw.Model, image: Image.Image, length: int, prepared: published.Preparation) -> published.Found:
    return published.find(model, model.prepare(image)[0], prepared, length)


def seconds(function: Callable[[], Any]) -> float:
    """Of the processor, which other work on the machine changes little; of the clock with an accelerator."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def peak_memory(function: Callable[[], Any]) -> int | None:
    """Bytes over what is held before; None where the system does not tell (it takes Linux or CUDA)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    try:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier work freed would hide what this work takes
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is held now
        before = _resident("VmHWM")
        function()
        return _resident("VmHWM") - before
    except OSError:
        return None


def _resident(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) * 1024 if found else 0


def weight_bytes(model: nw.Model) -> int:
    return sum(p.numel() * p.element_size() for p in model.module.parameters())


def measure(model: nw.Model, image: Image.Image, length: int, repeats: int, with_published: bool) -> dict[str, Any]:
    """All figures of the report."""
    tasks: dict[str, Callable[[], Any]] = {
        "plain generate": lambda: plain(model, image, length),
        "find": lambda: find(model, image, length),
        AGAIN: lambda: find(model, image, length, anew=False),
    }
    ids, found = tasks["plain generate"](), tasks["find"]()
    result: dict[str, Any] = {
        "text": found.run.text,
        "nouns": [concept.word for concept in found.concepts],
        "tokens": len(found.run.output_ids),
        "neurons decoded": len({n for concept in found.concepts for n in concept.neurons.neurons}),
        "same tokens": ids[: len(found.run.output_ids)] == found.run.output_ids,
        "weights": weight_bytes(model),
    }
    del found
    memory = {name: peak_memory(task) for name, task in tasks.items()}
    if with_published:
        start = time.perf_counter()
        prepared = published.prepare(model)
        result["preparation"] = {"seconds": time.perf_counter() - start, "bytes": prepared.size}
        tasks["published"] = lambda: literally(model, image, length, prepared)
        theirs = tasks["published"]()
        result["same tokens"] = result["same tokens"] and theirs.ids == ids[: len(theirs.ids)]
        del theirs
        memory["published"] = peak_memory(tasks["published"])
    times: dict[str, list[float]] = {name: [] for name in tasks}
    parts: list[dict[str, float]] = []
    for _ in range(repeats):
        for name, task in tasks.items():
            if name == "published":
                kept: list[published.Found] = []
                times[name].append(seconds(lambda task=task, kept=kept: kept.append(task())))
                parts.append(kept[0].seconds)
            else:
                times[name].append(seconds(task))
    result["seconds"] = times
    result["memory"] = memory
    if parts:
        others = [part["ten other maps a word"] for part in parts]
        times[SAME_OUTPUT] = [total - other for total, other in zip(times["published"], others, strict=True)]
        memory[SAME_OUTPUT] = memory["published"]
        result["published parts"] = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    return result


def ratio(times: dict[str, list[float]], over: str, under: str) -> str:
    """Median of the rounds' ratios, with their range."""
    found = [a / b for a, b in zip(times[over], times[under], strict=True)]
    return f"{statistics.median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def table(result: dict[str, Any]) -> str:
    times, weights = result["seconds"], result["weights"]
    lines = [
        f"“{result['text']}”: {result['tokens']} tokens, nouns {', '.join(result['nouns'])}; "
        f"{result['neurons decoded']} different neurons decoded; the same tokens in all: {result['same tokens']}",
        "",
        "| | seconds, median | × plain generate | × find | peak memory over the weights | of the weights |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in times.items():
        memory = result["memory"][name]
        if name in ("published", SAME_OUTPUT):
            memory = None if memory is None else memory + result["preparation"]["bytes"]
        size = "–" if memory is None else f"{memory / 1e6:.0f} MB"
        share = "–" if memory is None else f"{memory / weights:.1%}"
        lines.append(
            f"| {name} | {statistics.median(rounds):.2f} | {ratio(times, name, 'plain generate')} | "
            f"{ratio(times, name, 'find')} | {size} | {share} |"
        )
    if "preparation" in result:
        made, parts = result["preparation"], result["published parts"]
        lines += [
            "",
            f"Preparation of the published procedure: {made['seconds']:.0f} s and {made['bytes'] / 1e9:.1f} GB, kept "
            "in memory (counted in its memory, not in its time). Its time is "
            f"{', '.join(f'{name} {value:.2f} s' for name, value in parts.items())}.",
        ]
    lines += ["", f"Weights: {weights / 1e6:.0f} MB. Ratios: median of the rounds (least–most)."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of plain generation, find, and the published way.")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--shape", choices=sorted(TEXT), help="a random model of that shape in place of --model")
    parser.add_argument("--image", type=Path, help="scikit-image's cat when left out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, help="at most so many; 50, and 16 with --shape")
    parser.add_argument("--device", default=None)
    parser.add_argument("--dtype", default=None, help="as stored; bfloat16 with --shape")
    parser.add_argument("--threads", type=int, help="torch threads; as torch finds it by default")
    parser.add_argument("--no-published", action="store_true", help="leave the published procedure out")
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    if arguments.shape:
        model = random_model(arguments.shape, dtype or torch.bfloat16, arguments.device or "cpu")
    else:
        model = nw.load(arguments.model, dtype=dtype, device_map=arguments.device)
    path = arguments.image
    if path is None:
        import skimage

        path = Path(skimage.__file__).parent / "data" / "chelsea.png"
    length = arguments.tokens or (16 if arguments.shape else 50)
    result = measure(model, open_image(path), length, arguments.repeats, not arguments.no_published)
    result["about"] = {
        "model": model.name, "device": str(model.device), "torch": torch.__version__,
        "threads": torch.get_num_threads(), "repeats": arguments.repeats, "command": sys.argv[1:],
    }  # fmt: skip
    if arguments.json:
        write_json(arguments.json, result)
    about = result["about"]
    print(f"{about['model']} on {about['device']}, {about['threads']} threads, torch {about['torch']}\n")
    print(table(result))


if __name__ == "__main__":
    main()
