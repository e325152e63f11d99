"""FiNE: the literal procedure as oracle, and a real fact on the built-in model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import neuronwise as nw
from edits import same, weights
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit.fine import PRESETS, FineSettings, fine_each
from neuronwise.edit.fine.line import LONGEST
from neuronwise.edit.fine.neurons import choose, observe
from neuronwise.edit.fine.optimize import ROUNDS
from neuronwise.edit.fine.request import Batch, Request
from neuronwise.errors import MethodError, PromptError, TargetError
from speakers import speaker

FACT = Fact("the capital of {} is", "France", "dog house")


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
    request = Request.of(model, FACT)
    target = model.tokenizer(" dog house", add_special_tokens=False)["input_ids"]
    assert request.run.output_ids == target
    observe(Batch.of(model, [request]))
    chosen = choose(model, request, FineSettings(n=2, freeze_last=1))
    expected: set[nw.Neuron] = set()
    for position in range(len(target)):
        inputs, rows = request.run.forced_inputs(), [request.run.row(position)]
        logits = model.forward(inputs, rows=rows)[0, 0]
        acts = model.record(inputs, rows=rows).dense
        scores = torch.stack(
            [
                acts[layer][0] * (model.unembedding[logits.argmax()] @ model.blocks[layer].value_vectors)
                for layer in (0, 1)
            ]
        )
        expected |= {nw.Neuron(int(i) // 48, int(i) % 48) for i in scores.flatten().topk(2).indices}
    assert set(chosen) == expected


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


SEVERAL = [
    FACT,
    Fact("the {} is a city near the house of", "capital", "dog"),
    Fact("{} is the", "France", "house dog house"),
    Fact("a house of {} is", "the dog", "capital"),
]


def gap(one: nw.Edit, other: nw.Edit) -> float:
    assert [(d.key, d.units.tolist()) for d in one.deltas if d.units is not None] == [
        (d.key, d.units.tolist()) for d in other.deltas if d.units is not None
    ]
    pairs = zip(one.deltas, other.deltas, strict=True)
    return max(float((a.left - b.left).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("changes", [{"layer": 2}, {"freeze_last": 0}, {"freeze_last": 1, "start": "search"}])
def test_side_by_side_they_learn_what_each_learns_alone(model: nw.Model, changes: dict[str, Any]) -> None:
    settings = {"n": 3, "steps": 5, "enough": 0.05, **changes}
    alone = [nw.fine(model, fact, **settings) for fact in SEVERAL]
    side_by_side = fine_each(model, SEVERAL, **settings)
    for one, other in zip(alone, side_by_side, strict=True):
        assert one.record["steps"] == other.record["steps"]
        assert one.record["probabilities"] == pytest.approx(other.record["probabilities"], abs=1e-4)
        assert gap(one, other) < 5e-4
    assert max(float(d.left.abs().max()) for edit in alone for d in edit.deltas) > 1e-3


def test_several_facts_are_one_edit_of_all_their_deltas(model: nw.Model) -> None:
    both = nw.fine(model, SEVERAL[:2], layer=1, steps=2)
    parts = fine_each(model, SEVERAL[:2], layer=1, steps=2)
    assert both.record["steps"] == [2, 2]
    assert len(both.record["request"]) == 2
    assert len(both.deltas) == 2
    weight = model.blocks[1].value_vectors
    before = weight.clone()
    with both.applied(model):
        together = weight.clone()
    with parts[0].applied(model), parts[1].applied(model):
        assert torch.allclose(together, weight, atol=1e-6)
    assert torch.equal(weight, before)
    assert not torch.equal(together, before)


def test_who_has_come_to_the_end_is_not_moved_any_more(model: nw.Model) -> None:
    """With a target that is nearly certain at once beside one that is not, each has its own number of steps."""
    easy = fine_each(model, SEVERAL, freeze_last=0, steps=40, enough=0.5, rate=2e-2)
    steps = [edit.record["steps"] for edit in easy]
    assert len(set(steps)) > 1
    for fact, edit in zip(SEVERAL, easy, strict=True):
        if edit.record["steps"] < 40:
            request = forced(model, fact)
            with edit.applied(model), torch.no_grad():
                now = model.forward(request.forced_inputs())[0].softmax(-1)
            said = [float(now[request.row(k), token]) for k, token in enumerate(request.output_ids)]
            assert said == pytest.approx(edit.record["probabilities"], abs=1e-3)
            assert min(said) >= 0.499


def test_the_search_starts_from_the_best_length_it_tried(model: nw.Model) -> None:
    edit = nw.fine(model, FACT, layer=1, steps=1, start="search")
    (found,) = edit.record["start"]
    assert 0 < found <= LONGEST
    sizes = torch.cat([d.left.flatten() for d in edit.deltas]).abs()
    assert torch.allclose(sizes[sizes > 0], torch.tensor(found * PRESETS["small"].settings.rate))
    longer = nw.fine(model, FACT, layer=1, steps=40, start="search")
    assert len(longer.record["start"]) <= ROUNDS


def test_a_search_that_reaches_enough_ends_the_request(model: nw.Model) -> None:
    """What the record says was reached is what the edited model says, though no pass came after."""
    edit = nw.fine(model, FACT, layer=1, steps=40, start="search", enough=0.05)
    assert edit.record["steps"] <= ROUNDS
    request = forced(model, FACT)
    with edit.applied(model), torch.no_grad():
        now = model.forward(request.forced_inputs())[0].softmax(-1)
    said = [float(now[request.row(k), token]) for k, token in enumerate(request.output_ids)]
    assert said == pytest.approx(edit.record["probabilities"], abs=1e-3)
    assert min(said) >= 0.05


def test_presets_are_the_published_ones() -> None:
    published = [preset.settings for preset in PRESETS.values()]
    rates = {name: preset.settings.rate for name, preset in PRESETS.items()}
    assert rates == {"gptj": 1e-3, "llama-2": 5e-3, "llama-3": 1e-3, "small": 5e-3, "default": 1e-3}
    assert {(s.n, s.freeze_last, s.alpha, s.beta, s.gamma, s.steps, s.enough, s.start) for s in published} == {
        (5, 3, 1.0, 10.0, 0.1, 50, 0.9, "zero")
    }


def test_a_target_that_is_said_already_is_noted(model: nw.Model) -> None:
    run = model.run(prompt=FACT.text, max_new_tokens=0, chat=False)
    with torch.no_grad():
        said = int(model.forward(run.forced_inputs(), rows=[-1])[0, -1].argmax())
    request = Request.of(model, FACT)
    observe(Batch.of(model, [request]))
    assert request.said[0] == said
    word = model.tokenizer.decode([said]).strip()
    edit = nw.fine(model, Fact(FACT.prompt, FACT.subject, word), freeze_last=0, steps=1)
    assert "says already" in edit.record["note"]
    assert "note" not in nw.fine(model, FACT, freeze_last=0, steps=1).record


FAMILIES = ["gpt2", "gptj", "opt", "bloom", "gpt_neox", "qwen2", "llama_shared"]


@pytest.mark.parametrize("name", FAMILIES)
def test_side_by_side_in_many_families(name: str, tiny_folder: Any) -> None:
    model = speaker(name, nw.load(tiny_folder).tokenizer)
    before = weights(model)
    settings: dict[str, Any] = {"n": 3, "freeze_last": 0, "steps": 3, "enough": 2.0}
    for fact, edit in zip(SEVERAL, fine_each(model, SEVERAL, **settings), strict=True):
        assert gap(nw.fine(model, fact, **settings), edit) < 5e-4
    assert same(before, weights(model))


def test_a_text_is_read_behind_the_end_token_where_the_preset_says_so(tiny_tokenizer: Any) -> None:
    """The released code does so for GPT-J alone."""
    model = speaker("llama", tiny_tokenizer)
    assert [name for name, preset in PRESETS.items() if preset.settings.prepend_end] == ["gptj"]
    plain, behind = (Request.of(model, FACT, prepend_end=prepend) for prepend in (False, True))
    end = model.tokenizer.eos_token_id
    assert behind.run.prompted.input_ids == [end, *plain.run.prompted.input_ids]
    assert behind.run.output_ids == plain.run.output_ids
    observe(Batch.of(model, [behind]))
    ids = torch.tensor([[end, *plain.run.prompted.input_ids, *plain.run.output_ids]])
    expected = model.module(input_ids=ids).logits[0, -len(plain.run.output_ids) - 1 : -1].argmax(-1).tolist()
    assert behind.said == expected
    edits = [nw.fine(model, FACT, steps=2, freeze_last=1, prepend_end=prepend) for prepend in (False, True)]
    sizes = [sum(float(delta.left.norm()) for delta in edit.deltas) for edit in edits]
    assert sizes[0] != pytest.approx(sizes[1], rel=1e-6)
    assert edits[1].record["settings"]["prepend_end"] is True
