"""What every method must do, whatever it computes; a method that is added is tested by these as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import neuronwise as nw
from conformed import tiny
from neuronwise.errors import MethodError
from neuronwise.locate import METHODS, score_all
from neuronwise.locate.methods import methods

FAMILIES = ("llama", "gpt2", "qwen2_moe")

COMPARING = methods("inpainted", "twin", "photos")  # need a photo: see test_two_stage.py


@pytest.fixture(scope="module", params=FAMILIES)
def run(request: pytest.FixtureRequest) -> nw.Run:
    model, prompted, _ = tiny(request.param)
    return nw.Run.of(model, prompted)


@pytest.mark.parametrize("name", METHODS)
def test_it_says_what_it_is(name: str, run: nw.Run) -> None:
    method = METHODS[name]
    assert method.name == name
    assert method.meaning.count("{token}") == 1
    assert isinstance(method.source, str)
    with pytest.raises(MethodError, match=rf"^{name} has no option tremble; it takes [\w, ]+\.$"):
        nw.locate(run.model, run, method=name, tremble=1, target=29)


@pytest.mark.parametrize("name", methods("run"))
def test_it_scores_every_neuron_that_fired(name: str, run: nw.Run) -> None:
    scores = nw.scores(run.model, run, method=name, target=29)
    fired = {writer for writer in run.model.writers if writer.fired(run.activations(0)) is not None}
    assert set(scores) >= fired
    for writer, values in scores.items():
        assert values.shape == (writer.width,)
        assert values.dtype == torch.float32
        assert values.device.type == "cpu"
    every = scores.top(None)
    assert len(every) == sum(map(len, scores.values()))
    assert [member.score for member in every] == sorted((member.score for member in every), reverse=True)
    assert all(scores.of(member.neuron) == member.score for member in every[:5])
    assert torch.equal(
        torch.cat(list(scores.values())), torch.cat(list(nw.scores(run.model, run, method=name, target=29).values()))
    )


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(COMPARING)))
def test_it_finds_as_many_as_are_wanted_and_says_how(name: str, run: nw.Run, tmp_path: Path) -> None:
    among = nw.locate(run.model, run, method="contribution", top=20, target=29)
    found = nw.locate(run.model, run, method=name, top=7, among=among, target=29)
    assert len(found) == 7
    assert all(neuron in neurons for neurons in [set(every(run))] for neuron in found.neurons)
    assert found.record["method"] == name
    assert (found.record["token_id"], found.record["position"]) == (29, None)
    found.save(tmp_path / "found.json")
    assert nw.NeuronSet.load(tmp_path / "found.json") == found


def every(run: nw.Run) -> list[nw.Neuron]:
    return [neuron for writer in run.model.writers for neuron in writer.neurons]


@pytest.mark.parametrize("name", methods("run"))
def test_several_runs_are_joined(name: str, run: nw.Run) -> None:
    one = score_all(run.model, run, [run.target(target=29)], name)[0]
    found = nw.locate(run.model, [run, run], method=name, agree="mean", top=5, target=29)
    assert found.record["agree"] == "mean"
    assert [member.score for member in found] == pytest.approx([member.score for member in one.top(5)], rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_what_it_needs_is_asked_for(name: str, run: nw.Run) -> None:
    needs = METHODS[name].needs
    if needs != "run":
        with pytest.raises(
            MethodError,
            match={"inpainted": "inpainted=", "twin": "counterfactual=", "among": "among=", "photos": "inpainted="}[
                needs
            ],
        ):
            nw.locate(run.model, run, method=name, target=29)
    if needs in ("among", "photos"):
        with pytest.raises(MethodError, match="cannot be called like this"):
            nw.scores(run.model, run, method=name, target=29)
    other = tiny("llama")[0]
    beside: Any = {"among": ["L0.U1"]} if needs == "among" else {"inpainted": "photo.png"} if needs != "run" else {}
    with pytest.raises(MethodError, match="model that made it"):
        nw.locate(other, run, method=name, **beside, target=29)


def test_an_unknown_name_lists_the_known_ones(run: nw.Run) -> None:
    with pytest.raises(MethodError, match=r"no method 'magic'; the methods are contribution, .*random_same_layers"):
        nw.locate(run.model, run, method="magic", target=29)
