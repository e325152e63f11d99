"""The loss read from the last hidden states, against the plain formula over all logits."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import neuronwise as nw
from neuronwise.answers.request import forced
from neuronwise.data.facts import Fact
from neuronwise.edit.fine import FineSettings, head
from neuronwise.edit.fine.change import Change
from neuronwise.edit.fine.head import PlainHead, plain_head
from neuronwise.edit.fine.loss import FromHidden, loss, read
from neuronwise.edit.fine.optimize import Passes
from neuronwise.edit.fine.request import Batch, Request
from neuronwise.model.hooks import Hooks
from speakers import speaker

FACT = Fact("the capital of {} is", "France", "dog house")
RUN: Any = SimpleNamespace(output_ids=[3, 41], length=9)  # behind a prompt of 7
REQUEST = Request(FACT, RUN)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of eleven tokens."""
    monkeypatch.setattr(head, "SLICE", 1)
    monkeypatch.setattr(head, "LEAST", 11)


def drawn(dtype: torch.dtype, bias: bool = True, scale: float = 0.7) -> tuple[PlainHead, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(64, 16, generator=generator).to(dtype)
    offset = torch.randn(64, generator=generator).to(dtype) if bias else None
    before = 0.8 * torch.randn(9, 16, generator=generator)
    now = before + 0.3 * torch.randn(9, 16, generator=generator)
    return PlainHead(weight, offset, scale), before.to(dtype), now.to(dtype)


def plain(plain_head: PlainHead, before: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
    """The loss written out from the paper, and its gradient by autograd."""
    leaf = now.clone().requires_grad_()

    def logs(hidden: Tensor) -> Tensor:
        found = hidden @ plain_head.weight.T
        found = found if plain_head.bias is None else found + plain_head.bias
        return (plain_head.scale * found).log_softmax(-1)

    after, old = logs(leaf), logs(before)
    total = -torch.stack([after[6, 3], after[7, 41]]).min()
    total = total + (old[:6].exp() * (old[:6] - after[:6])).sum(1).mean()
    total = total + 10 * (-torch.log(1 - after[8, [3, 41]].exp())).max()
    total.backward()
    assert leaf.grad is not None
    return total.detach(), leaf.grad


def from_hidden(plain_head: PlainHead, before: Tensor, now: Tensor, sparing: bool = False) -> tuple[Tensor, Tensor]:
    kept = read(REQUEST, before.clone().requires_grad_(), plain_head, sparing).kept()
    leaf = now.clone().requires_grad_()
    total = loss(REQUEST, read(REQUEST, leaf, plain_head, sparing), kept, FineSettings())
    total.backward()
    assert leaf.grad is not None
    return total.detach(), leaf.grad


@pytest.mark.parametrize("sparing", [False, True])
@pytest.mark.parametrize(("bias", "scale"), [(True, 0.7), (False, 1.0), (True, -2.0)])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_loss_and_gradient_are_those_of_the_plain_formula(
    dtype: torch.dtype, near: float, bias: bool, scale: float, sparing: bool, narrow: None
) -> None:
    drawing = drawn(dtype, bias, scale)
    expected, found = plain(*drawing), from_hidden(*drawing, sparing)
    assert found[0].dtype == dtype
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=5 * near)
    assert float((found[1] - expected[1]).norm()) < 2 * near * float(expected[1].norm())


def test_terms_can_be_left_out_and_no_gradients_need_no_means(narrow: None) -> None:
    plain_one, before, now = drawn(torch.float64)
    alone = loss(REQUEST, read(REQUEST, now, plain_one), None, FineSettings(alpha=0, beta=0))  # nothing has been kept
    assert plain_one.bias is not None
    logs = (plain_one.scale * (now @ plain_one.weight.T + plain_one.bias)).log_softmax(-1)
    assert float(alone) == pytest.approx(float(-min(logs[6, 3], logs[7, 41])), rel=1e-12)
    kept = read(REQUEST, before.clone().requires_grad_(), plain_one).kept()
    with torch.no_grad():
        reading = read(REQUEST, now, plain_one)
        assert isinstance(reading, FromHidden)
        assert reading.whole is not None
        assert reading.whole[1] is None
        whole = loss(REQUEST, reading, kept, FineSettings())
    assert float(whole) == pytest.approx(float(plain(plain_one, before, now)[0]), rel=1e-12)


def test_of_the_unedited_model_nothing_has_moved(narrow: None) -> None:
    """Its divergence is 0 and has no gradient, so it may be left out."""
    plain_one, before, _ = drawn(torch.float64)
    results = []
    for kept in (None, read(REQUEST, before, plain_one, sparing=True).kept()):
        leaf = before.clone().requires_grad_()
        total = loss(REQUEST, read(REQUEST, leaf, plain_one), kept, FineSettings())
        total.backward()
        results.append((float(total), leaf.grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1])


def test_a_change_too_small_for_the_difference_of_sums_keeps_its_gradient() -> None:
    """Close to the unedited model the divergence vanishes; its gradient is a difference of means, not of sums."""
    plain_one, before, _ = drawn(torch.float32)
    now = before + 1e-4 * torch.randn(9, 16, generator=torch.Generator().manual_seed(1))
    rows = slice(0, 6)
    kept = read(REQUEST, before.clone().requires_grad_(), plain_one).kept()
    leaf = now.clone().requires_grad_()
    read(REQUEST, leaf, plain_one).moved(kept).backward()
    assert plain_one.bias is not None
    wide, offset = plain_one.weight.double(), plain_one.bias.double()

    def logs(hidden: Tensor) -> Tensor:
        return (plain_one.scale * (hidden.double() @ wide.T + offset)).log_softmax(-1)

    exact = now.clone().double().requires_grad_()
    nn.functional.kl_div(logs(exact[rows]), logs(before[rows]), reduction="batchmean", log_target=True).backward()
    assert leaf.grad is not None
    assert exact.grad is not None
    gap = (leaf.grad.double() - exact.grad).norm()
    assert float(gap) < 1e-6  # of a mean whose entries are about 1
    assert float(exact.grad.norm()) > 5e-5
    assert float(gap) < 0.02 * float(exact.grad.norm())


def test_half_precision_within_its_rounding(narrow: None) -> None:
    plain_one, before, now = drawn(torch.bfloat16)
    whole = PlainHead(plain_one.weight.float(), plain_one.bias.float(), 0.7) if plain_one.bias is not None else None
    assert whole is not None
    expected, found = plain(whole, before.float(), now.float()), from_hidden(plain_one, before, now)
    assert found[1].dtype == torch.bfloat16
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=2e-2)
    assert float((found[1].float() - expected[1]).norm()) < 2e-2 * float(expected[1].norm())


def head_of(model: nw.Model) -> PlainHead | None:
    return plain_head(model, forced(model, FACT).forced_inputs())


@pytest.mark.parametrize(
    ("name", "scale"), [("llama", 1), ("gptj", 1), ("opt", 1), ("cohere", 0.25), ("granite", 0.25), ("gpt_neox", 1)]
)
def test_what_is_behind_a_linear_head_is_seen(name: str, scale: float, tiny_folder: Any) -> None:
    model = speaker(name, nw.load(tiny_folder).tokenizer)
    found = head_of(model)
    assert found is not None
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert (found.bias is not None) == (name == "gptj")


@pytest.mark.parametrize("name", ["gemma2", "nanochat"])
def test_a_soft_cap_is_no_plain_head(name: str, tiny_folder: Any) -> None:
    assert head_of(speaker(name, nw.load(tiny_folder).tokenizer)) is None


def test_a_cap_far_above_the_logits_is_seen_too(tiny_folder: Any) -> None:
    model = speaker("gemma2", nw.load(tiny_folder).tokenizer)
    model.config.final_logit_softcapping = 200.0
    assert head_of(model) is None


class Strange(Tensor):
    """As quantized weights are: a tensor of its own kind."""


def test_heads_that_something_else_changes_are_not_plain(model: nw.Model) -> None:
    assert head_of(model) is not None
    with Hooks() as hooks:
        hooks.after(model.head, lambda module, args, kwargs, output: output + 1)
        assert head_of(model) is None
    assert head_of(model) is not None
    weight = model.head.weight
    model.head.weight = nn.Parameter(weight.detach().as_subclass(Strange), requires_grad=False)  # type: ignore
    assert head_of(model) is None
    model.head.weight = weight
    assert head_of(model) is not None
    original: Callable[..., Any] = model.module.forward
    again = nw.Model(model.module, model.processor)

    def biased(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        output.logits = output.logits + torch.linspace(0, 1, output.logits.shape[-1])
        return output

    again.module.forward = biased
    try:
        assert head_of(again) is None
    finally:
        del again.module.forward


CHANGES: list[dict[str, Any]] = [{"freeze_last": 0}, {"freeze_last": 1, "start": "search"}]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("name", ["llama", "gptj", "cohere", "granite", "opt"])
def test_both_ways_make_the_same_edit(
    name: str, changes: dict[str, Any], tiny_folder: Any, monkeypatch: pytest.MonkeyPatch, narrow: None
) -> None:
    model = speaker(name, nw.load(tiny_folder).tokenizer)
    settings: dict[str, Any] = {"n": 3, "steps": 5, "rate": 5e-3, **changes}
    quick = nw.fine(model, FACT, **settings)
    monkeypatch.setattr(sys.modules[Passes.__module__], "plain_head", lambda *_: None)
    slow = nw.fine(model, FACT, **settings)
    assert quick.record["steps"] == slow.record["steps"]
    assert quick.record["probabilities"] == pytest.approx(slow.record["probabilities"], rel=1e-3)
    for one, other in zip(quick.deltas, slow.deltas, strict=True):
        assert torch.allclose(one.left, other.left, atol=2e-4)
        assert float(other.left.abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["gemma2", "llama", "granite"])
def test_what_is_recorded_is_what_the_edited_model_says(name: str, tiny_folder: Any) -> None:
    model = speaker(name, nw.load(tiny_folder).tokenizer)
    edit = nw.fine(model, FACT, n=3, freeze_last=0, steps=9, rate=2e-2, start="search", enough=0.3)
    request = forced(model, FACT)
    with edit.applied(model), torch.no_grad():
        now = model.forward(request.forced_inputs())[0].softmax(-1)
    said = [float(now[request.row(k), token]) for k, token in enumerate(request.output_ids)]
    if min(said) >= 0.3:  # else a step was taken after what is recorded was seen
        assert said == pytest.approx(edit.record["probabilities"], abs=1e-3)
    else:
        assert edit.record["steps"] == 9


class Shapes(TorchDispatchMode):
    """The shapes of all tensors made within the body."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.seen |= {tuple(value.shape) for value in tree_leaves(found) if torch.is_tensor(value)}
        return found


def test_no_pass_holds_the_logits_of_its_rows(model: nw.Model, monkeypatch: pytest.MonkeyPatch, narrow: None) -> None:
    request = Request.of(model, FACT)
    batch, vocabulary = Batch.of(model, [request]), model.vocabulary_size
    change = Change(model, request, [nw.Neuron(0, 1)])

    def shapes() -> set[tuple[int, ...]]:
        passes = Passes(batch, [change], FineSettings(), lambda rows=None, of=None: model.forward(batch.inputs, rows))
        with Shapes() as made:
            hidden, (own,) = passes.rows([change], [change.values])
            passes.read(change, hidden[own].detach().requires_grad_()).said().sum().backward()
        return made.seen

    assert request.length == 7
    assert vocabulary == 27
    seen = shapes()
    assert (7, 11) in seen  # a slice
    assert not {shape for shape in seen if shape[-1:] == (27,)}
    monkeypatch.setattr(sys.modules[Passes.__module__], "plain_head", lambda *_: None)
    assert (7, 27) in shapes()
