"""The rows of a study are the same whoever measures its cases, and whoever is killed meanwhile."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import neuronwise as nw
from neuronwise.data.photos import Photos, load_photos
from neuronwise.errors import ModelError, StudyError
from neuronwise.model.named import Named
from neuronwise.study.executors import Workers
from neuronwise.study.kind import Study
from neuronwise.study.notes import Row
from neuronwise.study.progress import Progress
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.runner import resume, run_study
from neuronwise.study.workers.coordinator import Coordinator
from neuronwise.study.workers.processes import Processes
from neuronwise.study.workers.worker import Answer, Measure, Task
from wired_study import RECIPE, talking, write_photos

pytestmark = pytest.mark.long


def without_seconds(study: Study) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in study.rows]


@pytest.fixture(scope="module")
def checkpoint(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wired")
    model = talking(tiny_tokenizer)
    model.module.save_pretrained(folder)
    model.processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    return load_photos(write_photos(tmp_path_factory.mktemp("photos")))


@pytest.fixture(scope="module")
def serial(checkpoint: Path, photos: Photos) -> Study:
    return run_study(nw.load(checkpoint), make_recipe({**RECIPE, "model": str(checkpoint)}), photos)


def test_a_worker_killed_at_its_work_changes_no_row(
    checkpoint: Path, photos: Photos, serial: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give, again = Processes.give, Coordinator._again
    killed, lost = [], []

    def giving(self: Processes, worker: int, task: Task, notes: list[Row], tell: Progress) -> None:
        give(self, worker, task, notes, tell)
        if type(task) not in [type(one) for one in killed] and isinstance(task, (Answer, Measure)):
            killed.append(task)
            time.sleep(random.Random(len(killed)).uniform(0, 0.05))
            os.kill(self._workers[worker].process.pid or 0, signal.SIGKILL)

    def lose(self: Coordinator, task: Task, reason: str) -> Task:
        lost.append((task, reason))
        return again(self, task, reason)

    monkeypatch.setattr(Processes, "give", giving)
    monkeypatch.setattr(Coordinator, "_again", lose)
    recipe = make_recipe({**RECIPE, "model": str(checkpoint)})
    found = run_study(Named(str(checkpoint)), recipe, photos, tmp_path, executor="processes", workers=2)
    assert lost == [(task, "by SIGKILL") for task in killed]  # each had a task in hand
    assert [type(task) for task in killed] == [Answer, Measure]
    assert without_seconds(found) == without_seconds(serial)
    assert found.notes == serial.notes


def test_a_killed_coordinator_leaves_no_worker_and_is_resumed(
    checkpoint: Path, photos: Photos, serial: Study, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "model": str(checkpoint)}))
    out, data = tmp_path / "out", photos.source
    command = [sys.executable, "-m", "neuronwise", "study", "run", recipe, "--data", data, "--out", out]
    with subprocess.Popen([*command, "--executor", "processes", "--workers", "2"], stderr=subprocess.DEVNULL) as run:
        while not (out / "cases.jsonl").is_file() or not (out / "cases.jsonl").stat().st_size:
            assert run.poll() is None
            time.sleep(0.005)
        children = [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]
        run.kill()
    assert len(children) >= 2
    held = (out / "cases.jsonl").read_bytes()
    assert held.count(b"\n") > 0
    for pid in children:
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            time.sleep(0.01)  # it ends with its task, at the latest
    found = resume(out, lambda _: nw.load(checkpoint))
    assert without_seconds(found) == without_seconds(serial)
    assert (out / "cases.jsonl").read_bytes().startswith(held)


def test_what_no_worker_can_open_is_one_sentence(
    photos: Photos, tiny_tokenizer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe({**RECIPE, "model": "nowhere"})
    with pytest.raises(ModelError, match="nowhere"):
        run_study(Named(str(tmp_path / "nowhere")), recipe, photos, tmp_path / "out", executor="processes", workers=2)
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(ModelError, match="it was wrapped in Python; save it to a folder with save_pretrained"):
        run_study(talking(tiny_tokenizer), recipe, photos, tmp_path / "out", executor="processes")
    with pytest.raises(StudyError, match="The executor 'processes' does not take address"):
        run_study(Named("x"), recipe, photos, executor="processes", workers=Workers(2, address="host:1"))
    with pytest.raises(StudyError, match="The executor 'serial' does not take workers"):
        run_study(Named("x"), recipe, photos, executor="serial", workers=2)
    with pytest.raises(StudyError, match="There is no executor 'threads'; the executors are serial, processes, ray"):
        run_study(Named("x"), recipe, photos, executor="threads")
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_changed_is_not_opened_by_its_name(checkpoint: Path) -> None:
    model = nw.load(checkpoint)
    assert Named.of(model) == Named(str(checkpoint), Named.of(model).options)
    model.blocks[0].value_vectors.data += 1
    with pytest.raises(ModelError, match="its weights have been changed since; save it"):
        Named.of(model)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_two_actors_of_ray_give_the_serial_rows_though_one_is_killed(
    checkpoint: Path, photos: Photos, serial: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuronwise.study.workers.on_ray import Actors

    give, killed = Actors.give, []

    def giving(self: Actors, worker: int, task: Task, notes: list[Row], tell: Progress) -> None:
        give(self, worker, task, notes, tell)
        if isinstance(task, Measure) and not killed:
            killed.append(task)
            self._ray.kill(self._hands[worker])

    monkeypatch.setattr(Actors, "give", giving)
    recipe = make_recipe({**RECIPE, "model": str(checkpoint)})
    found = run_study(Named(str(checkpoint)), recipe, photos, executor="ray", workers=2)
    assert len(killed) == 1
    assert without_seconds(found) == without_seconds(serial)
    with pytest.raises(StudyError, match=r"No Ray cluster answers at '127.0.0.1:1' \(Connection refused\)"):
        run_study(Named("x"), recipe, photos, executor="ray", workers=Workers(2, "127.0.0.1:1"))
