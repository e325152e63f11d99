"""A study that is killed at random moments and gone on with equals one that was left alone, row for row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from neuronwise.study.results import read_study

pytestmark = pytest.mark.long

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("NEURONWISE_ROUNDS", "1"))  # of twenty kills each


def without_seconds(row: Any) -> dict[str, Any]:
    return {column: value for column, value in row.items() if not column.startswith("seconds")}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_twenty_kills_lose_at_most_the_case_in_hand(seed: int, tmp_path: Path, tiny_tokenizer: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    paths = os.pathsep.join([str(HERE.parent), str(HERE.parents[1] / "src")])
    done = subprocess.run(
        [sys.executable, HERE / "killed.py", tmp_path, str(seed)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told["states"]) == 20
    assert told["states"] == sorted(told["states"])
    assert len({state for state in told["states"] if 0 < state < told["total"]}) >= 3  # kills in the midst of it
    assert (told["repeated"], told["notes_repeated"], told["finished"]) == (0, 0, True)
    whole, killed = (read_study(tmp_path / name) for name in ("whole", "killed"))
    assert [without_seconds(row) for row in killed.rows] == [without_seconds(row) for row in whole.rows]
    assert len(whole.rows) == told["total"] * 9
    assert killed.notes == whole.notes
    assert killed.failed == whole.failed == {}
    tables = [
        parquet.read_table(tmp_path / name / "cases.parquet").drop_columns(["seconds"]) for name in ("whole", "killed")
    ]
    assert tables[0].equals(tables[1])
