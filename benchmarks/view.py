"""What the viewer's pages cost: the first one, and a neuron's from an index in the shape of a 7B model.

python benchmarks/view.py --folder /tmp/view              # makes a synthetic index there (650 MB) unless it is there
python benchmarks/view.py --index INDEX                   # one of your own

The server is a process of its own, asked one page at a time; a page is measured to its last byte. Memory is the
server's resident memory: its own, and apart from that mapped files, which the operating system takes back when it
needs them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path

import httpx
import numpy as np
from safetensors.numpy import save_file

from neuronwise.files import write_json
from neuronwise.index import Index

LAYERS, WIDTH, ITEMS, PLACES, KEPT = 32, 11008, 5000, ("predicting", "image", "text"), 20
SIDE, CAPTION = 24, 20  # image tokens of a side, tokens of a caption


def main() -> int:
    asked = arguments()
    folder = asked.index or synthetic(asked.folder / "index-7b")
    index = Index.load(folder)
    neurons = [neuron for layer in index.layers for neuron in index.neurons(layer)]
    chosen = random.Random(0).sample(neurons, min(asked.pages, len(neurons)))
    command = [sys.executable, "-m", "neuronwise", "view", str(folder), "--no-browser", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        url = next(found[0] for line in server.stderr if (found := re.findall(r"http\S+", line)))
        with httpx.Client(base_url=url.split("/?")[0], timeout=60) as client:
            token = {"authorization": f"Bearer {url.partition('token=')[2]}"}
            first, size = page(client, "/", token)
            report("the first page", [first], size)
            first, size = page(client, f"/n/{chosen[0]}", token)
            report("the first page of a neuron", [first], size)
            before = memory(server.pid)
            pages = [page(client, f"/n/{neuron}", token) for neuron in chosen]
            report(f"a page of {len(pages)} neurons, at random", [seconds for seconds, _ in pages], pages[0][1])
            print(f"memory of the server: {before} before these, {memory(server.pid)} after")
    finally:
        server.terminate()
        server.wait()
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, help="an index of your own")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where a synthetic one is kept"
    )
    parser.add_argument("--pages", type=int, default=200)
    return parser.parse_args()


def page(client: httpx.Client, path: str, headers: dict[str, str]) -> tuple[float, int]:
    """Seconds until the last byte, and how many bytes."""
    start = time.perf_counter()
    answer = client.get(path, headers=headers)
    seconds = time.perf_counter() - start
    answer.raise_for_status()
    return seconds, len(answer.content)


def report(what: str, seconds: list[float], size: int) -> None:
    ordered = sorted(seconds)
    spread = f" (95 % within {1000 * ordered[int(0.95 * len(ordered))]:.0f} ms)" if len(ordered) > 1 else ""
    print(f"{what}: {1000 * statistics.median(ordered):.0f} ms{spread}, {size / 1000:.0f} kB")


def memory(pid: int) -> str:
    """Resident MB of a process: its own, and of files that are mapped."""
    status = Path(f"/proc/{pid}/status").read_text()
    own, mapped = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) / 1000 for name in ("RssAnon", "RssFile"))
    return f"{own:.0f} MB of its own and {mapped:.0f} MB of mapped files"


def synthetic(folder: Path) -> Path:
    """An index of random numbers in the shape of LLaVA-1.5-7B over 5,000 photos."""
    if (folder / "index.json").is_file():
        return folder
    (folder / "layers").mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    lines = [item(number) for number in range(ITEMS)]
    starts = np.array([0, *accumulate(map(len, lines))][:-1], dtype=np.int64)
    (folder / "items.jsonl").write_bytes(b"".join(lines))
    save_file({"offsets": starts}, folder / "items.safetensors")
    shape = (WIDTH, len(PLACES), 2, KEPT)
    for layer in range(LAYERS):
        value = np.sort(np.abs(chance.normal(size=shape)), axis=-1)[..., ::-1] * np.array([1, -1])[:, None]
        arrays = {
            "moments": np.abs(chance.normal(size=(*shape[:2], 3))).astype(np.float32) % 1,
            "histogram": chance.integers(0, 100, (*shape[:2], 64), dtype=np.uint8),
            "value": np.ascontiguousarray(value.astype(np.float32)),
            "item": chance.integers(0, ITEMS, shape, dtype=np.int32),
            "position": chance.integers(0, SIDE * SIDE + CAPTION, shape, dtype=np.int32),
            "gate": chance.integers(1, 3, shape, dtype=np.uint8),
            "counts": np.full((1, len(PLACES)), 100_000, dtype=np.int64),
        }
        save_file(arrays, folder / "layers" / f"L{layer}.safetensors")
    write_json(folder / "index.json", about())
    return folder


def item(number: int) -> bytes:
    grid = {"rows": SIDE, "columns": SIDE, "box": [0, 0, 640, 480], "cells": 5}
    tokens = ["<s>", "USER", ":", " ", "\n", SIDE * SIDE, *(f" word{k}" for k in range(CAPTION))]
    record = {"source": number, "kind": "photo", "name": f"{number:012}.jpg", "text": "a photo of a thing " * 5}
    return (json.dumps({**record, "tokens": tokens, "size": [640, 480], "grid": grid}) + "\n").encode()


def about() -> dict[str, object]:
    writers = [
        {"name": f"L{layer}.mlp.down_proj", "layer": layer, "expert": None, "first": 0, "width": WIDTH}
        for layer in range(LAYERS)
    ]
    model = {"name": "synthetic 7B", "source": "", "num_layers": LAYERS, "weights": None, "likeness": [1.0, 2.0]}
    recipe = {
        "schema": "neuronwise.index.work/1", "model": model, "data": {"photos": ITEMS}, "reading": {}, "k": KEPT,
        "shard": [1, 1], "writers": writers, "versions": {},
    }  # fmt: skip
    return {
        "schema": "neuronwise.index/1", "recipe": recipe, "items": ITEMS, "examples": KEPT,
        "positions": dict.fromkeys(PLACES, 100000),
        "thresholds": {str(layer): 1.0 for layer in range(LAYERS)}, "left_out": [],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
