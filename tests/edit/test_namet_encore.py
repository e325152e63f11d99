"""NAMET and ENCORE: the procedures of their published code, written out again with whole passes and full matrices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import neuronwise as nw
from edits import Moments
from neuronwise.data.facts import Fact
from neuronwise.edit.encore import EncoreSettings, encore
from neuronwise.edit.memory.keys import fact_keys
from neuronwise.edit.memory.spread import search_targets
from neuronwise.edit.memory.value import search
from neuronwise.edit.namet import NametSettings, namet
from neuronwise.errors import MethodError

FACT = Fact("the capital of {} is", "France", "dog house")
OTHER = Fact("the animal in {} is", "Paris", "red cat")
PREFIXES = ("a dog runs on the mat . ", "cat . ")
QUICK: dict[str, Any] = {"layers": (0, 1), "v_num_grad_steps": 4, "context_templates": PREFIXES}
FAMILIES = ("llama", "gpt2", "opt")


class Pass:
    """One text read alone: the layer's output at the subject, with ``delta`` added there, and the log-probabilities."""

    held: Tensor

    def __init__(self, model: nw.Model, text: str, head: str, ending: list[int], layer: int, delta: Tensor) -> None:
        tokenizer: Any = model.tokenizer
        self.ids = tokenizer(text)["input_ids"]
        row = len(tokenizer(head)["input_ids"]) - 1
        row -= int(tokenizer(head)["input_ids"][-1] == getattr(tokenizer, "eos_token_id", None))

        def add(module: Any, args: Any, output: Any) -> Any:
            hidden = output if isinstance(output, Tensor) else output[0]
            self.held = hidden.reshape(-1, hidden.shape[-1])[row].detach().clone()
            mask = torch.zeros(len(self.ids) + len(ending), 1)
            mask[row] = 1
            hidden = hidden + (mask * delta).reshape(hidden.shape)
            return hidden if isinstance(output, Tensor) else (hidden, *output[1:])

        handle = model.blocks[layer].module.register_forward_hook(add)
        logits = model.module(input_ids=torch.tensor([self.ids + ending])).logits[0]
        handle.remove()
        self.logs = logits.log_softmax(-1)
        self.subject = self.logs[row]


def texts(fact: Fact) -> list[tuple[str, str]]:
    """Each prefixed prompt, and it up to the subject's end."""
    head = fact.prompt.partition("{}")[0] + fact.subject
    return [(prefix + fact.text, prefix + head) for prefix in ("", *PREFIXES)]


def noisy_search(model: nw.Model, fact: Fact, layer: int, settings: NametSettings) -> Tensor:
    """compute_z of the published code: decay and bound over the matrix of all hidden states."""
    tokenizer: Any = model.tokenizer
    target = tokenizer(f" {fact.target_new}", add_special_tokens=False)["input_ids"]
    delta = torch.zeros(model.hidden_size, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=settings.v_lr)
    init, kept = None, None
    for step in range(settings.v_num_grad_steps):
        reads = [Pass(model, text, head, target[:-1], layer, delta) for text, head in texts(fact)]
        essence = Pass(model, f"{fact.subject} is a", fact.subject, [], layer, delta)
        if init is None or kept is None:
            init = torch.stack([read.held for read in (*reads, essence)], dim=1)
            kept = essence.subject.detach()
        lost = [
            -torch.stack([read.logs[len(read.ids) - 1 + k, token] for k, token in enumerate(target)]).mean()
            for read in reads
        ]
        loss = torch.stack(lost).mean() + settings.kl_factor * (kept.exp() * (kept - essence.subject)).sum()
        loss = loss + settings.v_weight_decay * delta.repeat(init.shape[1], 1).T.norm() / init.norm()
        if float(loss) < settings.enough_loss or step == settings.v_num_grad_steps - 1:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta.mul_(min(1.0, float(settings.clamp_norm_factor * init.norm() / delta.norm())))
    return delta.detach()


@pytest.mark.parametrize("name", FAMILIES)
def test_namet_is_the_published_procedure(make: Any, name: str) -> None:
    model = make(name)
    width = model.blocks[0].width
    statistics = Moments(width, width)
    settings = NametSettings(**QUICK, v_lr=0.3, clamp_norm_factor=0.2, mom2_update_weight=(2.0, 5.0))
    edit = namet(model, [FACT, OTHER], settings, statistics=statistics)
    deltas = {fact: noisy_search(model, fact, 1, settings) for fact in (FACT, OTHER)}
    for fact, delta in deltas.items():
        (value,), _ = search(model, fact, 1, [model.blocks[1].module], settings, everywhere=True)
        torch.testing.assert_close(value.delta, delta, atol=2e-4, rtol=1e-3)
    nothing = torch.zeros(model.hidden_size)
    first = {
        fact: torch.stack([Pass(model, *pair, [], 1, nothing).held for pair in texts(fact)[1:]]) for fact in deltas
    }
    below = nw.Edit(())
    for number, (made, weight) in enumerate(zip(edit.deltas, (2.0, 5.0), strict=True)):
        with below.applied(model):
            keys = fact_keys(model, [FACT, OTHER], number, ("", *PREFIXES), halves=True).T.double()
            held = {
                fact: torch.stack([Pass(model, *pair, [], 1, nothing).held for pair in texts(fact)[1:]])
                for fact in deltas
            }
        missing = torch.stack([(first[fact] + delta - held[fact]).mean(0) for fact, delta in deltas.items()])
        system = weight * statistics.moment + keys @ keys.T
        expected = missing.T.double() / (2 - number) @ torch.linalg.solve(system, keys).T
        assert made.right is not None
        found = made.left.double() @ made.right.double()
        torch.testing.assert_close(found, expected, atol=2e-3 * float(expected.abs().max()), rtol=0)
        below = nw.Edit((*below.deltas, made))


def test_namet_without_prefixes_measures_on_the_prompt(model: nw.Model) -> None:
    edit = namet(model, FACT, layers=(1,), v_num_grad_steps=4, context_templates=(), identity_weight=1e-9)
    assert edit.record["missing"][0] < 1e-3
    assert edit.record["covariance"] == "identity"
    with pytest.raises(MethodError, match="one number above 0"):
        NametSettings(mom2_update_weight=())


@pytest.mark.parametrize("name", FAMILIES)
def test_encore_is_the_published_solution(make: Any, name: str) -> None:
    model = make(name)
    width = model.blocks[1].width
    statistics = Moments(width, width)
    changes = {**QUICK, "layers": (1,), "mom2_update_weight": 2.0, "update_norm_lambda": 0.7}
    first = encore(model, FACT, statistics=statistics, **changes)
    former = fact_keys(model, [FACT], 1, ("", *PREFIXES), halves=True).T.double()
    with first.applied(model):
        second = encore(model, OTHER, statistics=statistics, **changes)
        keys = fact_keys(model, [OTHER], 1, ("", *PREFIXES), halves=True).T.double()
        targets = search_targets(model, [OTHER], 1, EncoreSettings(**changes), patience=3)
        missing = targets.missing(())
    assert (first.record["previous"], second.record["previous"]) == (0, 1)
    system = 2.0 * statistics.moment + 0.7 * torch.eye(width, dtype=torch.float64) + former @ former.T + keys @ keys.T
    expected = missing.T.double() @ torch.linalg.solve(system, keys).T
    (delta,) = second.deltas
    assert delta.right is not None
    found = delta.left.double() @ delta.right.double()
    torch.testing.assert_close(found, expected, atol=2e-4 * float(expected.abs().max()), rtol=0)


def test_encore_stops_when_the_target_has_led_behind_every_prefix_for_some_passes(model: nw.Model) -> None:
    fact = Fact("the capital of {}", "France", "dog")
    spot = model.blocks[2].module
    changes: dict[str, Any] = {"context_templates": PREFIXES, "kl_factor": 0.0, "enough_loss": 0.0, "v_lr": 0.3}
    settings = EncoreSettings(**changes, clamp_norm_factor=50.0, v_num_grad_steps=40)
    target = model.tokenizer(" dog", add_special_tokens=False)["input_ids"][0]
    ends = {}
    for patience in (1, 2, 4):
        (value,), end = search(model, fact, 2, [spot], settings, patience=patience)
        ends[patience] = end["steps"]
        reads = [Pass(model, text, head, [], 2, value.delta) for text, head in texts(fact)[1:]]
        assert all(int(read.logs[-1].argmax()) == target for read in reads)
    assert 1 < ends[1] < ends[2] < ends[4] < 40
    with pytest.raises(MethodError, match="patience"):
        EncoreSettings(patience=0)
