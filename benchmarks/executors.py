"""How much faster a study is on several workers: the same study by one process and by several, one thread each.

Opening the model is timed apart: every worker opens its own, at the same time.

    python benchmarks/executors.py DATA/val2017 --photos 16 --workers 1 2

The ratio means something only where nothing else runs on these cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

from neuronwise.data.photos import Photos, load_photos
from neuronwise.model.named import Named
from neuronwise.study.executors import EXECUTORS
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.runner import run_study

RECIPE = {
    "kind": "suppression", "prompt": None, "max_new_tokens": 20, "K": [10, 50], "without": 4, "at_least": 1, "most": 2,
    "methods": ["contribution", "gradient_activation", "random"], "metrics": ["bleu-1"], "interventions": ["suppress"],
}  # fmt: skip


def measured(model: str, photos: Photos, executor: str, workers: int) -> tuple[float, float, float, list[object]]:
    """Seconds until a worker has opened the model and captioned the first photos, of the other captions, and of the
    cases; and the rows without their times."""
    begun: dict[str, float] = {}
    ended: dict[str, float] = {}

    def tell(what: str, done: int, total: int) -> None:
        ended[what] = time.perf_counter()
        begun.setdefault(what, ended[what])

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        study = run_study(
            Named(model), make_recipe({**RECIPE, "model": model}), photos, f"{folder}/out", executor=executor,
            workers=workers, progress=tell,
        )  # fmt: skip
        rows: list[object] = [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in study.rows]
    captions, cases = (ended[what] - begun[what] for what in ("captions before", "cases"))
    return begun["captions before"] - start, captions, cases, rows


def main() -> None:
    """Print one line for each number of workers, and whether their rows are the same."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos_folder", metavar="PHOTOS")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--executor", default="processes", choices=[name for name in EXECUTORS if name != "serial"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the workers, which are started from here
    there = load_photos(given.photos_folder)
    photos = Photos(there.photos[: given.photos], (), there.source)
    print("| workers | s until the first captions | captions, s | cases, s | cases, times as fast | same rows |")
    print("|---:|---:|---:|---:|---:|:---|")
    first = None
    for workers in given.workers:
        opening, captions, cases, rows = measured(given.model, photos, given.executor, workers)
        first = first or (cases, rows)
        same = "yes" if rows == first[1] else "no"
        ratio = first[0] / cases
        print(f"| {workers} | {opening:.1f} | {captions:.1f} | {cases:.1f} | {ratio:.2f} | {same} |", flush=True)


if __name__ == "__main__":
    main()
