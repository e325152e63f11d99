"""The benchmark of accelerators, on tiny models and a CPU: every task runs and is in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def found(scripts: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out: Path = tmp_path_factory.mktemp("accelerator") / "found.json"
    scripts("accelerator").main(["--tiny", "--out", str(out)])
    return json.loads(out.read_text())


@pytest.mark.parametrize("shape", ["tiny", "tiny-qwen"])
def test_every_task_is_measured(found: dict[str, Any], shape: str) -> None:
    tasks = found["models"][shape]["tasks"]
    assert list(tasks) == [
        "generate", "find and heatmaps", "batch of 2", "batch of 4", "fine", "fine_specific, moments included", "swap",
        "two_stage", "index of 4 photos",
    ]  # fmt: skip
    assert {name: task for name, task in tasks.items() if "seconds" not in task} == {}


def test_half_precision_agrees(found: dict[str, Any]) -> None:
    agreed = found["agreement"]
    assert agreed["same tokens"] >= 0.75 * agreed["of"]
    assert min(agreed["shared of the top 100"]) > 0.5


def test_no_task_begins_when_the_time_is_over(scripts: Any, tmp_path: Path) -> None:
    found = scripts("accelerator").main(["--tiny", "--minutes", "0", "--out", str(tmp_path / "found.json")])
    assert all("left out" in task for model in found["models"].values() for task in model["tasks"].values())
