"""What an index costs: time and memory for each photo, and the size and speed of one of a 7B model's shape.

python benchmarks/index.py                       # the built-in model, scikit-image's photos; then 352,256 neurons
python benchmarks/index.py --photos 0            # the shape alone
python benchmarks/index.py --shape 4x512 --items 30

The built-in model is plainly asked for its captions first, then indexed, both in batches of the same size; memory is
the peak so far. Of the shape, LAYERSxWIDTH, random activations are counted, then the index is
written, opened and read, at neurons that are drawn. Seconds are the
process's own, so that a busy machine counts little.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from neuronwise.index import Index
from neuronwise.index.compact import write_index
from neuronwise.index.tally import PLACES, Fired, Tally
from neuronwise.index.work import SCHEMA, About, Recipe, Work, Writers

ROWS = {"predicting": 12, "image": 64, "text": 20}  # of each random item
BATCH = 8  # items that are counted together, as by default
READ = 2000  # neurons that are read


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--photos", type=int, default=16, help="scikit-image's photos to index; 0 for none")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shape", default="32x11008", help="LAYERSxWIDTH of the random model; none for no such")
    parser.add_argument("--items", type=int, default=24)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.photos:
            found["photos"] = of_photos(arguments.model, arguments.photos, arguments.batch, Path(folder) / "photos")
        if arguments.shape != "none":
            layers, width = map(int, arguments.shape.split("x"))
            found["shape"] = of_shape(layers, width, arguments.items, Path(folder) / "shape")
    json.dump(found, sys.stdout, indent=1)
    print()


def of_photos(name: str, count: int, batch: int, out: Path) -> dict[str, Any]:
    """Seconds and memory for each photo, beside plain captions."""
    import skimage

    import neuronwise as nw
    from neuronwise.model.state import weights_hash

    model = nw.load(name)
    folder = Path(skimage.__file__).parent / "data"
    photos = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))[:count]
    weights_hash(model)  # once for a model, not for each photo
    model.run_many(photos[:batch], max_new_tokens=2, batch_size=batch, record=False)
    held, start = _peak(), time.process_time()
    model.run_many(photos, max_new_tokens=20, batch_size=batch, record=False)
    plain, start = time.process_time() - start, time.process_time()
    captions = _peak()
    index = Index.build(model, photos, out=out, max_new_tokens=20, batch_size=batch)
    whole = time.process_time() - start
    assert index is not None
    return {
        "model": model.name, "neurons": len(index), "photos": len(index.items), "batch": batch,
        "captions_alone_seconds_a_photo": plain / len(photos), "index_seconds_a_photo": whole / len(photos),
        "ratio": whole / plain, "positions": index.positions, "megabytes": _size(out) / 1e6,
        "memory_megabytes": {"before": held, "captions": captions, "index": _peak()},
    }  # fmt: skip


def of_shape(layers: int, width: int, items: int, out: Path) -> dict[str, Any]:
    """Counting, saving, writing, opening and reading an index of random activations."""
    recipe = Recipe(
        schema=SCHEMA, k=20, shard=[1, 1], data={}, reading={}, versions={},
        model=About(name="random", source="random", num_layers=layers, weights=None, likeness=[0.0]),
        writers=[Writers(name=f"L{n}", layer=n, expert=None, first=0, width=width) for n in range(layers)],
    )  # fmt: skip
    out.mkdir()
    work, counting = Work.begin(out, recipe), 0.0
    for start in range(0, items, BATCH):
        for tally in work.tallies.values():
            counting += _counted(tally, range(start, min(start + BATCH, items)), width)
    for item in range(items):
        record = {"source": item, "kind": "text", "name": str(item), "text": "dog" if item % 3 else "cat"}
        rows = {place: list(range(count)) for place, count in ROWS.items()}
        work.keep({**record, "tokens": ["a"] * sum(ROWS.values())}, rows)
    state = sum(t.numel() * t.element_size() for tally in work.tallies.values() for t in tally.tensors().values())
    saving = _timed(work.save)
    writing = _timed(lambda: write_index(out, recipe, work.tallies, work.lines(), work.progress))
    size = _size(out / "layers") + sum((out / name).stat().st_size for name in ("index.json", "items.jsonl"))
    work.forget(items=False)
    index = Index.load(out)
    draw = random.Random(0)
    addresses = [f"L{draw.randrange(layers)}.U{draw.randrange(width)}" for _ in range(READ)]
    index[addresses[0]]
    return {
        "neurons": len(index), "items": items, "counting_seconds_an_item": counting / items,
        "nanoseconds_an_activation": counting / items / len(index) / sum(ROWS.values()) * 1e9,
        "state_megabytes": state / 1e6, "saving_seconds": saving, "writing_seconds": writing, "megabytes": size / 1e6,
        "opening_milliseconds": min(_timed(lambda: Index.load(out)) for _ in range(5)) * 1e3,
        "neuron_microseconds": _timed(lambda: [index[one] for one in addresses]) / READ * 1e6,
        "top_20_microseconds": _timed(lambda: [index[one].top(20) for one in addresses]) / READ * 1e6,
        "locate_seconds": _timed(lambda: index.locate("dog")),
        "similar_seconds": _timed(lambda: index.similar(addresses[0])),
        "baseline_seconds": _timed(index.baseline),
    }  # fmt: skip


def _counted(tally: Tally, items: range, width: int) -> float:
    """Count random activations of one layer in some items; the seconds that it takes."""
    seconds = 0.0
    for place, count in enumerate(ROWS[place] for place in PLACES):
        rows, gates = torch.arange(count), torch.ones(count, width, dtype=torch.uint8)
        seen = [Fired(item, rows, torch.randn(count, width) * 0.3, gates) for item in items]
        seconds += _timed(lambda place=place, seen=seen: tally.add(0, place, seen))
    return seconds


def _timed(work: Any) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _peak() -> float:
    """The most memory that the process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


if __name__ == "__main__":
    main()
