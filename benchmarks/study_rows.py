"""What a study's own bookkeeping costs: time a row and memory, with synthetic cases that measure nothing.

Each number of rows is a process of its own: its cases are kept one by one or as workers bring them, the table is
written, and the largest memory it ever had is compared with what it had before the first case.

    python benchmarks/study_rows.py --rows 1000 10000 100000
    python benchmarks/study_rows.py --rows 1000 10000 --executor processes --workers 2
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from neuronwise.model.named import Named
from neuronwise.study.kind import Unit
from neuronwise.study.notes import Notes, Row
from neuronwise.study.progress import Progress
from neuronwise.study.runner import run_job

CAPTION = "a brown dog sits on a wooden bench beside a small tree in the park"


@dataclass
class Synthetic:
    """``count`` cases of one row, like those of a study of captions."""

    count: int
    schema: str = "neuronwise.study/1"
    plan: dict[str, object] = field(default_factory=lambda: {"kind": "synthetic"})
    source: dict[str, object] = field(default_factory=dict)

    def begin(self, notes: Notes, folder: Path | None, tell: Progress) -> list[Unit]:
        """List the cases."""
        ids = [f"dog/contribution/suppress/{number}" for number in range(self.count)]
        notes.kept("study", "cases", lambda: {"ids": ids})
        return [Unit((name,)) for name in ids]

    def measure(self, unit: Unit, wanted: Sequence[str]) -> Generator[Row, None, None]:
        """A row of a dozen columns, made up."""
        for name in wanted:
            row = {f"figure {n}": n / 7 for n in range(10)} | {"before": CAPTION, "after": CAPTION[:40], "photo": name}
            yield {
                "id": name, "status": "done", "reason": None, "inputs": {"concept": "dog", "K": 50}, "rows": [row],
                "seconds": 0.0,
            }  # fmt: skip

    def failed(self, name: str, reason: str) -> Row:
        """No case fails."""
        raise NotImplementedError


class NoModel(Named):
    """In place of a model."""

    def load(self) -> Any:
        """Nothing is opened."""
        return None


def made(count: int, model: object) -> Any:
    """The job, in whatever process."""
    return Synthetic(count)


def measured(count: int, executor: str, workers: int | None) -> dict[str, float]:
    """Time and memory of one study, in this process."""
    run_job(partial(made, 10), NoModel(""), None)  # what is imported once
    waited, fsync = [0.0], os.fsync

    def timed(file: int) -> None:
        start = time.perf_counter()
        fsync(file)
        waited[0] += time.perf_counter() - start

    os.fsync = timed
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        first: list[float] = []
        told: list[float] = []

        def tell(what: str, done: int, total: int) -> None:
            (first if not first else told).append(time.perf_counter())

        study = run_job(partial(made, count), NoModel(""), f"{folder}/out", executor, workers, progress=tell)
        end = time.perf_counter()
        assert study.finished
        assert len(study.rows) == count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": count, "cases": 1000 * (told[-1] - first[0] - waited[0]) / count, "disk": 1000 * waited[0] / count,
        "table": 1000 * (end - told[-1]) / count,
        "before": before / 1024, "growth": (peak - before) / 1024,
    }  # fmt: skip


def main() -> None:
    """Print one line for each number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--executor", default="serial")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measured(given.one, given.executor, given.workers)))
        return
    print("| rows | ms a row: bookkeeping | waiting for the disk | table | memory before, MB | growth, MB |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in given.rows:
        more = ["--workers", str(given.workers)] if given.workers else []
        command = [sys.executable, __file__, "--one", str(count), "--executor", given.executor, *more]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(
            "| {rows:,} | {cases:.2f} | {disk:.2f} | {table:.2f} | {before:.0f} | {growth:.0f} |".format(**found),
            flush=True,
        )


if __name__ == "__main__":
    main()
