"""FiNE: the literal procedure as oracle, and a real fact on the built-in model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import neuronwise as nw
from neuronwise.data.facts import Fact
from neuronwise.errors import MethodError, PromptError, TargetError

FACT = Fact("the capital of {} is", "France", "dog house")


@pytest.fixture
def model(tiny_folder: Any) -> nw.Model:
    return nw.load(tiny_folder)


def literal(model: nw.Model, edit: nw.Edit, steps: int, rate: float) -> dict[tuple[int, str], torch.Tensor]:
    """The same neurons, optimized by whole passes with the loss written out again from the paper."""
    tokenizer = model.tokenizer
    prompt = tokenizer(FACT.text)["input_ids"]
    target = tokenizer(" dog house", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt + target])
    found = {(d.layer, d.path): torch.zeros(d.rank, 32, requires_grad=True) for d in edit.deltas}
    units = {(d.layer, d.path): d.units for d in edit.deltas}

    def logits() -> torch.Tensor:
        handles = []
        for (layer, path), delta in found.items():
            module = model.blocks[layer].module.get_submodule(path)
            handles.append(
                module.register_forward_hook(
                    lambda m, args, out, u=units[layer, path], delta=delta: out + args[0][..., u] @ delta
                )
            )
        try:
            return model.module(input_ids=ids).logits[0].log_softmax(-1)
        finally:
            for handle in handles:
                handle.remove()

    before = logits().detach()[: len(prompt) - 1]
    optimizer = torch.optim.Adam(found.values(), lr=rate)
    for _ in range(steps):
        now = logits()
        said = torch.stack([now[len(prompt) - 1 + k, token] for k, token in enumerate(target)])
        loss = (-said).max()
        loss = loss + nn.functional.kl_div(now[: len(prompt) - 1], before, reduction="batchmean", log_target=True)
        loss = loss + 10 * (-torch.log(1 - now[-1, target].exp())).max()
        loss = loss + 0.1 * torch.cat([d.flatten() for d in found.values()]).norm()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {key: delta.detach() for key, delta in found.items()}


def test_it_is_the_literal_procedure(model: nw.Model) -> None:
    edit = nw.fine(model, FACT, n=3, freeze_last=1, steps=6, rate=5e-3, enough=2.0)
    assert edit.record["steps"] == 6
    expected = literal(model, edit, 6, 5e-3)
    for delta in edit.deltas:
        assert torch.allclose(delta.left.T, expected[delta.layer, delta.path], atol=2e-4)
    assert {d.layer for d in edit.deltas} <= {0, 1}


def test_the_chosen_neurons_say_what_the_model_says_now(model: nw.Model) -> None:
    from neuronwise.edit.fine import FineSettings, _choose
    from neuronwise.edit.request import forced

    request = forced(model, FACT)
    target = model.tokenizer(" dog house", add_special_tokens=False)["input_ids"]
    assert request.output_ids == target
    chosen = _choose(model, request, FineSettings(n=2, freeze_last=1))
    expected: set[nw.Neuron] = set()
    for position in range(len(target)):
        logits = model.forward(request.forced_inputs(), rows=[request.row(position)])[0, 0]
        acts = model.record(request.forced_inputs(), rows=[request.row(position)]).dense
        scores = torch.stack(
            [
                acts[layer][0] * (model.unembedding[logits.argmax()] @ model.blocks[layer].value_vectors)
                for layer in (0, 1)
            ]
        )
        expected |= {nw.Neuron(int(i) // 48, int(i) % 48) for i in scores.flatten().topk(2).indices}
    assert set(chosen) == expected


def test_the_model_is_left_as_it_is_also_when_it_fails(model: nw.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    nw.fine(model, FACT, freeze_last=1, steps=2)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        nw.fine(model, FACT, freeze_last=1, steps=2)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert all("forward" not in block.module.__dict__ for block in model.blocks)
    assert all(parameter.requires_grad for parameter in model.module.parameters())


def test_settings(model: nw.Model) -> None:
    assert {d.layer for d in nw.fine(model, FACT, layer=1, steps=1).deltas} == {1}
    first, again, other = (nw.fine(model, FACT, neurons="random", freeze_last=0, steps=1, seed=s) for s in (1, 1, 2))
    units = [
        [(d.layer, d.units.tolist()) for d in edit.deltas if d.units is not None] for edit in (first, again, other)
    ]
    assert units[0] == units[1] != units[2]
    with pytest.raises(MethodError, match="no layer"):
        nw.fine(model, FACT, freeze_last=3)
    with pytest.raises(MethodError, match="neurons="):
        nw.fine(model, FACT, neurons="best")


def test_requests_that_are_none() -> None:
    with pytest.raises(PromptError, match="no place"):
        Fact("The capital is", "France", "Rome")
    with pytest.raises(PromptError, match="subject of a fact is empty"):
        Fact("The capital of {} is", " ", "Rome")
    with pytest.raises(TargetError, match="empty"):
        Fact("The capital of {} is", "France", " ")
    assert Fact("The capital of France is", "France", "Rome").text == "The capital of France is"


@pytest.mark.builtin
def test_a_fact_is_corrected_and_comes_back(builtin_text: Any, tmp_path: Any) -> None:
    fact = Fact("The capital of {} is", "France", "Rome", "Paris")
    edit = nw.fine(builtin_text, fact)
    assert edit.parameters_changed <= 15 * 576
    edit.save(tmp_path / "edit")

    def says() -> str:
        return builtin_text.run(prompt=fact.text, max_new_tokens=2, chat=False).text

    assert says().startswith("Paris")
    with nw.load_edit(tmp_path / "edit").applied(builtin_text):
        assert says().startswith("Rome")
    assert says().startswith("Paris")
