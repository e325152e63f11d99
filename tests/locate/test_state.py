"""A run is scored in the state of the model in which it was recorded, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import families
import neuronwise as nw
from edits import random_edit
from neuronwise.errors import MethodError
from neuronwise.intervene import scale
from neuronwise.model import state
from neuronwise.model.prompt import Prompted
from neuronwise.model.run import Run
from neuronwise.read import lens


def recorded(model: Any) -> nw.Run:
    return model.run(prompt="the cat sits on", max_new_tokens=2, chat=False)


def by_hand(model: Any) -> None:
    with torch.no_grad():
        model.blocks[1].value_vectors[:, 7] += 1


def by_data(model: Any) -> None:
    model.module.model.layers[1].mlp.down_proj.weight.data *= 1.1


def by_training(model: Any) -> None:
    optimizer = torch.optim.SGD(model.module.parameters(), lr=0.1)
    model.module(torch.tensor([[4, 5, 6]])).logits.square().mean().backward()
    optimizer.step()


def by_a_hook(model: Any) -> None:
    model.module.model.layers[0].register_forward_hook(lambda module, args, output: output)


def by_another_precision(model: Any) -> None:
    model.module.to(torch.float64)


def by_an_edit(model: Any) -> None:
    random_edit(model).apply(model)


CHANGES = [by_hand, by_data, by_training, by_a_hook, by_another_precision, by_an_edit]


@pytest.mark.parametrize("change", CHANGES)
def test_another_state_is_refused(model: Any, change: Callable[[Any], None]) -> None:
    run = recorded(model)
    before = nw.scores(model, run, target=5, normalize=True)
    change(model)
    uses: list[Callable[[], object]] = [
        lambda: nw.locate(model, run, target=5, normalize=True),
        lambda: nw.scores(model, run, target=5),
        lambda: nw.locate(model, run, target=5, method="causal_effect", among=["L0.U1"]),
        lambda: nw.find(model, run, targets=5),
        lambda: nw.circuit(model, run, target=5, nodes=3),
        lambda: nw.Baseline.gather(model, [run]),
    ]
    for use in uses:
        with pytest.raises(MethodError, match=r"another state .*Run it again\."):
            use()
    again = nw.scores(model, recorded(model), target=5, normalize=True)
    if change is not by_a_hook:
        assert any(not a.equal(b) for a, b in zip(before.values(), again.values(), strict=True))


def test_what_was_taken_back_is_the_same_state(model: Any) -> None:
    run = recorded(model)
    edit = random_edit(model)
    edit.apply(model)
    with nw.suppress(model, ["L1.U3"]):
        edit.revert(model)
    with edit.applied(model):
        pass
    assert nw.locate(model, run, target=5, top=3).neurons == nw.locate(model, recorded(model), target=5, top=3).neurons


def test_within_an_intervention(model: Any) -> None:
    outside = recorded(model)
    with nw.suppress(model, ["L1.U3"]):
        inside = recorded(model)
        nw.locate(model, inside, target=5)
        with pytest.raises(MethodError, match="intervention"):
            nw.locate(model, outside, target=5)
    nw.locate(model, outside, target=5)
    with pytest.raises(MethodError, match="intervention"):
        nw.locate(model, inside, target=5)
    with nw.suppress(model, ["L1.U4"]), pytest.raises(MethodError, match="intervention"):
        nw.locate(model, inside, target=5)
    with nw.suppress(model, ["L1.U3"]):
        nw.locate(model, inside, target=5)


def test_experts_are_restored_to_the_same_state() -> None:
    module, inputs = families.tiny("mixtral")
    model = nw.Model(module)
    run = Run.of(model, Prompted("", False, inputs), [5, 6])
    run.activations(0)
    with scale(model, ["L0.E1.U2"], 0.5), pytest.raises(MethodError, match="intervention"):
        nw.scores(model, run, target=5)
    assert nw.scores(model, run, target=5)


def test_a_run_of_which_nothing_is_recorded_takes_the_first_state(model: Any) -> None:
    run = Run.of(model, recorded(model).prompted, [5, 6])
    by_hand(model)
    first = nw.scores(model, run, target=5)
    assert all(bool(torch.isfinite(values).all()) for values in first.values())
    by_hand(model)
    with pytest.raises(MethodError, match="weights"):
        lens(model, run)


def test_heads_too(model: Any) -> None:
    outside = recorded(model)
    with nw.suppress(model, nw.Head(1, 2)):
        inside = recorded(model)
        nw.locate(model, inside, target=5)
        with pytest.raises(MethodError, match="intervention"):
            nw.locate(model, outside, target=5)
    with pytest.raises(MethodError, match="intervention"):
        nw.locate(model, inside, target=5)


def test_a_settled_state_is_taken_once_but_for_interventions(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[object] = []
    monkeypatch.setattr(state, "_sampled", lambda model: taken.append(model) or ())

    @state.settled
    def twice(model: Any) -> list[state.State]:
        found = [state.state_of(model), state.state_of(model)]
        with nw.suppress(model, ["L0.U1"]):
            found.append(state.state_of(model))
        return [*found, state.state_of(model)]

    first, again, within, after = twice(model)
    assert first == again == after != within
    assert within.interventions
    assert len(taken) == 2
    by_hand(model)
    assert state.state_of(model) != first


def test_an_edit_within_a_settled_function_is_seen(model: Any) -> None:
    edit = random_edit(model, seed=1)

    @state.settled
    def states(model: Any) -> list[state.State]:
        before = state.state_of(model)
        with edit.applied(model):
            within = state.state_of(model)
        with nw.suppress(model, ["L0.U1"]):
            edit.apply(model)
        changed = state.state_of(model)
        edit.revert(model)
        return [before, within, changed, state.state_of(model)]

    before, within, changed, after = states(model)
    assert before == after == state.state_of(model)
    assert before != within == changed
