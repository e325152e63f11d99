"""Passes that stop, edit, narrow and read; batches whose members give what they give alone; runs made by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from families import tiny
from neuronwise.model import Model, Run
from neuronwise.model.batches import batch, batches, text_inputs
from neuronwise.model.passes import edit, edit_input, inputs_of, only_rows, outputs_of, stop_after, stop_before
from neuronwise.model.prompt import Prompted


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.head = self.second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.fixture
def two() -> Iterator[Two]:
    module = Two()
    yield module
    for part in module.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks


def test_a_pass_stops_where_it_is_told(two: Two) -> None:
    with outputs_of(two.first) as first, outputs_of(two.second) as second, stop_after(two.first):
        two(torch.ones(1, 3))
        raise AssertionError("the pass went on")
    assert len(first) == 1
    assert not second
    with outputs_of(two.first) as first, inputs_of(two.second) as second, stop_before(two.second):
        two(torch.ones(1, 3))
    assert len(first) == 1
    assert torch.equal(first[0], second[0])


def test_an_outer_stop_is_not_taken_for_an_inner_one(two: Two) -> None:
    reached = []
    with stop_after(two.first):
        with stop_after(two.second):
            two(torch.ones(1, 3))
        reached.append(True)
    assert not reached


def test_errors_pass_through_a_stop(two: Two) -> None:
    with pytest.raises(RuntimeError), stop_after(two.second):
        two(torch.ones(1, 4))


def test_edits_change_what_a_module_gives_and_takes(two: Two) -> None:
    x = torch.ones(1, 3)
    with edit(two.first, lambda value: value * 0), torch.no_grad():
        assert torch.equal(two(x)[0], two.second.bias)
    with edit_input(two.second, lambda value: value * 0), torch.no_grad():
        assert torch.equal(two(x)[0], two.second.bias)
    with edit(two.second, lambda value: value * 0, within=two.first), torch.no_grad():
        assert two(x).any()


def test_only_rows_of_each_sequence_reach_the_head(two: Two) -> None:
    x = torch.randn(2, 4, 3)
    whole = two(x)
    with only_rows(two, [-1, 0]):
        assert torch.allclose(two(x), whole[:, [-1, 0]])
    with only_rows(two, [[1, -1], [0]]):
        assert torch.allclose(two(x)[0], torch.stack([whole[0, 1], whole[0, -1], whole[1, 0]]))
    with only_rows(two, []):
        assert two(x).shape == (2, 0, 3)
    with only_rows(two, None):
        assert torch.equal(two(x), whole)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bloom", "gemma3", "falcon", "qwen2_vl"])
def test_a_padded_batch_gives_what_its_members_give_alone(name: str) -> None:
    """On the left, at the positions that ``generate`` would use."""
    module, _ = tiny(name)
    model = Model(module)
    rows = [{"input_ids": torch.tensor([ids])} for ids in ([5, 9, 17, 33, 8], [7, 11], [4, 21, 6])]
    together = batch(model, rows)
    assert [together.row(n, -1) for n in range(3)] == [4, 4, 4]
    assert together.mask.sum(1).tolist() == [5, 2, 3]
    with torch.no_grad():
        logits = model.forward(together.inputs, rows=[[together.row(n, -1)] for n in range(3)])[0]
        alone = torch.cat([model.forward(row, rows=[-1])[:, -1] for row in rows])
    assert torch.allclose(logits, alone, atol=1e-4)


def test_batches_hold_every_prompt_once(builtin_text: Model) -> None:
    texts = ["The", "The capital of France is", "A dog", "Once upon a time there was a"]
    rows = [text_inputs(builtin_text, text) for text in texts]
    found = list(batches(builtin_text, rows, tokens=12))
    assert sorted(index for group, _ in found for index in group) == [0, 1, 2, 3]
    assert len(found) > 1
    for group, one in found:
        logits = builtin_text.forward(one.inputs, rows=[[one.row(n, -1)] for n in range(len(group))])[0]
        for number, index in enumerate(group):
            alone = builtin_text.forward(rows[index], rows=[-1])[0, -1]
            assert torch.allclose(logits[number], alone, atol=1e-3)


def test_a_run_is_made_of_given_tokens_and_a_memo_once() -> None:
    module, inputs = tiny("llama")
    model = Model(module)
    run = Run.of(model, Prompted("", False, inputs), (17, 33))
    assert run.output_ids == [17, 33]
    assert run.length == inputs["input_ids"].shape[1] + 2
    assert run.activations(0).dense[0].shape == (1, 48)
    made = []
    assert [model.memo("key", lambda: made.append(1) or 5) for _ in range(2)] == [5, 5]
    assert made == [1]
