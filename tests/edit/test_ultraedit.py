"""UltraEdit: the loop of its published code, written out again: running moments, one turn of edits after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import neuronwise as nw
from neuronwise.data.facts import Fact
from neuronwise.edit.ultraedit import ultraedit
from neuronwise.errors import MethodError

FACTS = (
    Fact("the capital of {} is", "France", "dog house"),
    Fact("the animal in {} is", "Paris", "red cat"),
    Fact("{} sits on the", "cat", "red mat on the"),
)
LATER = (Fact("the {} runs", "dog", "blue bear"), Fact("the capital of {} is", "Paris", "teddy bear on"))
RATE = 1e-3


class Running:
    """Counts, means and deviations over everything seen, as the published code updates them."""

    def __init__(self) -> None:
        self.n, self.mean, self.var = 0.0, torch.zeros(()), torch.zeros(())

    def update(self, x: Tensor) -> None:
        n = self.n + len(x)
        delta = x.mean(0) - self.mean
        self.mean = self.mean + len(x) * delta / n
        self.var = self.var + len(x) * x.var(0) + self.n * len(x) * delta.pow(2) / n
        self.n = n

    def __call__(self, x: Tensor) -> Tensor:
        tiny = torch.finfo(torch.float32).eps
        return (x - self.mean) / ((self.var / (self.n - 1 + tiny)).sqrt() + tiny)


def turn(model: nw.Model, facts: Any, layers: list[int], batch: int, running: Running) -> dict[int, Tensor]:
    """The changes (d, f) of one turn, and the running moments brought forward."""
    tokenizer: Any = model.tokenizer
    rows: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for start in range(0, len(facts), batch):
        seen: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in layers}
        handles, picked, asked, wanted = [], [], [], []
        for layer in layers:

            def keep(module: Any, args: Any, output: Tensor, into: Any = seen[layer]) -> None:
                output.retain_grad()
                into.append((args[0].detach(), output))

            handles.append(model.blocks[layer].dense[0].module.register_forward_hook(keep))
        for fact in facts[start : start + batch]:
            ids = tokenizer(fact.text)["input_ids"]
            target = tokenizer(f" {fact.target_new}", add_special_tokens=False)["input_ids"]
            logits = model.module(input_ids=torch.tensor([ids + target[:-1]])).logits[0]
            picked.append(slice(len(ids) - 1, len(ids) - 1 + len(target)))
            asked.append(logits[picked[-1]])
            wanted += target
        functional.cross_entropy(torch.cat(asked), torch.tensor(wanted)).backward()
        for handle in handles:
            handle.remove()
        model.module.zero_grad()
        for layer in layers:
            keys = torch.cat(
                [k.reshape(-1, k.shape[-1])[at] for (k, _), at in zip(seen[layer], picked, strict=True)]
            ).double()
            grads = torch.cat(
                [o.grad.reshape(-1, o.shape[-1])[at] for (_, o), at in zip(seen[layer], picked, strict=True)]  # type: ignore[union-attr]
            ).double()
            rows[layer].append(torch.cat([keys, grads], dim=1))
            running.update(rows[layer][-1])
    found = {}
    for layer in layers:
        features = torch.cat(rows[layer])
        width = model.blocks[layer].width
        keys, (hidden, gradients) = features[:, :width], running(features).split([width, model.hidden_size], 1)
        values = -RATE * hidden.square().sum(1, keepdim=True) * gradients
        matrix = keys.T @ keys + torch.eye(width, dtype=torch.float64)
        found[layer] = torch.linalg.solve(matrix, keys.T @ values).T
    return found


@pytest.mark.parametrize("name", ["llama", "gpt2", "gptj", "opt"])
def test_two_turns_are_those_of_the_published_code(make: Any, name: str) -> None:
    model = make(name)
    changes: dict[str, Any] = {"layers": (1, 2), "lr": RATE, "batch": 2, "warm": False}
    running = Running()
    expected = turn(model, FACTS, [1, 2], 2, running)
    first = ultraedit(model, FACTS, **changes)
    same_as(first, expected)
    with first.applied(model):
        expected = turn(model, LATER, [1, 2], 2, running)
        second = ultraedit(model, LATER, **changes)
        alone = ultraedit(model, LATER, previous=(), **changes)
    same_as(second, expected)
    assert not torch.allclose(alone.deltas[0].left, second.deltas[0].left)


def same_as(edit: nw.Edit, expected: dict[int, Tensor]) -> None:
    for delta in edit.deltas:
        assert delta.right is not None
        size = float(expected[delta.layer].abs().max())
        assert size > 1e-6
        found = delta.left.double() @ delta.right.double()
        torch.testing.assert_close(found, expected[delta.layer], atol=2e-3 * size, rtol=0)


def test_moments_of_former_edits_come_back_from_their_folders(model: nw.Model, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"layers": (1,), "lr": RATE, "batch": 2, "warm": False}
    first = ultraedit(model, FACTS, **changes)
    first.save(tmp_path / "edit")
    with first.applied(model):
        second = ultraedit(model, LATER, **changes)
    with nw.load_edit(tmp_path / "edit").applied(model):  # its rows are read anew, in the edited model
        again = ultraedit(model, LATER, **changes)
    torch.testing.assert_close(again.deltas[0].left, second.deltas[0].left, rtol=0.2, atol=1e-4)


def test_one_fact_of_one_token_moves_the_model_behind_neutral_moments(model: nw.Model) -> None:
    fact = Fact("the capital of {} is", "France", "dog")
    assert not ultraedit(model, fact, layers=(1,), warm=False).deltas[0].left.any()  # as published: no spread
    asked = model.tokenizer(" dog", add_special_tokens=False)["input_ids"][0]
    inputs = {"input_ids": torch.tensor([model.tokenizer(fact.text)["input_ids"]])}
    before = float(model.forward(inputs)[0, -1].log_softmax(-1)[asked])
    edit = ultraedit(model, fact, layers=(1, 2), lr=1e-4)
    with edit.applied(model):
        assert float(model.forward(inputs)[0, -1].log_softmax(-1)[asked]) > before


def test_what_it_refuses(model: nw.Model, make: Any) -> None:
    with pytest.raises(MethodError, match="batch"):
        ultraedit(model, FACTS, batch=0)
    with pytest.raises(MethodError, match="only routed experts"):
        ultraedit(make("olmoe"), FACTS, layers=(1,))
    with pytest.raises(MethodError, match="layers 0 to 2"):
        ultraedit(model, FACTS, layers=(7,))
