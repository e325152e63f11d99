"""Kills a study twenty times at random moments and goes on with it; run by a test in a process of its own.

Forked children start at once, since everything is imported before; one thread each, so that forking is safe.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from neuronwise.data.photos import load_photos
from neuronwise.study.recipe_file import make_recipe
from neuronwise.study.results import read_study
from neuronwise.study.runner import run_study
from wired_study import RECIPE, talking, write_photos

KILLS = 20
MANY = {**RECIPE, "K": [1, 3], "interventions": ["suppress", {"scale": 0.5}], "methods": [
    "two_stage", "contribution", "activation", "random", "random_same_layers"]}  # fmt: skip


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    model = talking(PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"))
    photos = load_photos(write_photos(folder / "photos"))
    recipe = make_recipe(MANY)
    start = time.process_time()
    whole = run_study(model, recipe, photos, folder / "whole")
    lasted = time.process_time() - start
    chance = random.Random(seed)
    lines = folder / "killed/cases.jsonl"
    finished, states = b"", []
    for _ in range(KILLS):
        moment = chance.uniform(0, 1.6 * lasted / KILLS)  # of the child's own work, however busy the machine is
        child = os.fork()
        if child == 0:
            signal.setitimer(signal.ITIMER_PROF, moment)
            run_study(model, recipe, photos, folder / "killed")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (-signal.SIGPROF, 0), "a child failed"
        now = lines.read_bytes() if lines.exists() else b""
        assert now.startswith(finished), "a finished case was lost"
        finished = now[: now.rfind(b"\n") + 1]
        states.append(finished.count(b"\n"))
    run_study(model, recipe, photos, folder / "killed")
    ids = [json.loads(line)["id"] for line in lines.read_bytes().splitlines()]
    notes = [(row["part"], row["key"]) for row in map(json.loads, (folder / "killed/before.jsonl").open())]
    sys.stdout.write(json.dumps({
        "states": states, "total": whole.total, "repeated": len(ids) - len(set(ids)),
        "notes_repeated": len(notes) - len(set(notes)), "finished": read_study(folder / "killed").finished,
    }))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
