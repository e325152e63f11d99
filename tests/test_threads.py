"""Threads share a model: each waits for the other, and the weights are the base's to the bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

import neuronwise as nw
from edits import random_edit, weights

TURNS = int(os.environ.get("NEURONWISE_TURNS", "6"))  # of each of eight threads


def test_edits_and_finds_in_threads_do_not_meet(model: Any) -> None:
    before = weights(model)
    edits = [random_edit(model, seed=seed) for seed in range(4)]

    def run() -> nw.Run:
        return model.run(prompt="the cat sits on", max_new_tokens=2, chat=False)

    def find() -> list[Any]:
        with model.lock:  # the run and what is found of it are of one state
            return nw.find(model, run(), targets=5, method="contribution", top=5).to_dict()["concepts"]

    def edited(edit: nw.Edit) -> str:
        with edit.applied(model):
            return run().text

    def suppressed() -> str:
        with nw.suppress(model, ["L1.U3", "L2.U5"]):
            return run().text

    tasks: list[Callable[[], Any]] = [find, suppressed, *[lambda edit=edit: edited(edit) for edit in edits]]
    tasks += [lambda: nw.fine(model, nw.Fact("the {} is", "cat", "red"), steps=2, freeze_last=0).deltas[0].left, find]
    alone = [task() for task in tasks]

    def repeated(number: int) -> bool:
        results = [tasks[number]() for _ in range(TURNS)]
        wanted = alone[number]
        return all(torch.equal(r, wanted) if isinstance(r, torch.Tensor) else r == wanted for r in results)

    with ThreadPoolExecutor(len(tasks)) as pool:
        assert all(pool.map(repeated, range(len(tasks))))
    assert model.edits == ()
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
