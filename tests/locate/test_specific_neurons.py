"""Specific neurons: scores less the others' mean size, over words of a text and over other runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import neuronwise as nw
from neuronwise.errors import MethodError
from neuronwise.locate import mean_size, specific_neurons
from speakers import speaker

PROMPT = "the cat sat on the mat"
PLAIN = {"method": "contribution"}


def run_of(model: nw.Model, prompt: str = PROMPT) -> nw.Run:
    return model.run(prompt=prompt, max_new_tokens=0, chat=False)


def test_a_score_is_the_words_own_less_the_mean_size_of_the_others(tiny_tokenizer: Any) -> None:
    model = speaker("llama", tiny_tokenizer)
    run, away = run_of(model), run_of(model, "the dog")
    others = [(run, run.target(target=" dog")), (away, away.target(target=" house"))]
    found = specific_neurons(model, run, target=" cat", others=others, weight=2.5, top=None, method="contribution")
    own = nw.scores(model, run, target=" cat")
    first, second = nw.scores(model, run, target=" dog"), nw.scores(model, away, target=" house")
    for member in found:
        expected = own.of(member.neuron)
        expected -= 2.5 * (abs(first.of(member.neuron)) + abs(second.of(member.neuron))) / 2
        assert member.score == pytest.approx(expected, abs=1e-6)
        assert member.activation == own.activation(member.neuron)
    assert [member.score for member in found] == sorted((member.score for member in found), reverse=True)
    assert found.record["specific"] == {"weight": 2.5, "others": [" dog", " house"]}
    once = mean_size([first, second])
    again = specific_neurons(model, run, target=" cat", others=once, weight=2.5, top=None, method="contribution")
    assert again.neurons == found.neurons
    plain = specific_neurons(model, run, target=" cat", others=others, weight=0, top=20, method="contribution")
    assert plain.neurons == nw.locate(model, run, target=" cat", top=20).neurons


def test_a_neuron_that_writes_both_words_is_not_specific(tiny_tokenizer: Any) -> None:
    """One neuron is made to write two words, another one of them alone."""
    model = speaker("llama", tiny_tokenizer)
    run = run_of(model)
    cat, dog = (run.target(target=word).token_id for word in (" cat", " dog"))
    acts = run.activations(0)
    vectors = model.blocks[1].value_vectors
    rows = model.unembedding.detach()
    with torch.no_grad():
        for unit, direction in (
            (0, rows[cat] + rows[dog]),
            (1, rows[cat] - (rows[cat] @ rows[dog]) / rows[dog].norm() ** 2 * rows[dog]),
        ):
            vectors[:, unit] = 10 * (2 - unit) * direction / direction.norm() ** 2 / float(acts.dense[1][0, unit])
    run = run_of(model)
    other = (run, run.target(target=" dog"))
    plain = specific_neurons(model, run, target=" cat", others=[other], weight=0, top=2, method="contribution")
    assert str(plain[0].neuron) == "L1.U0"
    apart = specific_neurons(model, run, target=" cat", others=[other], weight=1, top=2, method="contribution")
    assert str(apart[0].neuron) == "L1.U1"


def test_what_cannot_be_compared_is_refused(tiny_tokenizer: Any) -> None:
    model = speaker("llama", tiny_tokenizer)
    run = run_of(model)
    with pytest.raises(MethodError, match="no other word to compare with"):
        specific_neurons(model, run, target=" cat")
    with pytest.raises(MethodError, match="weight is -1"):
        specific_neurons(model, run, target=" cat", others=[(run, run.target(target=" dog"))], weight=-1)


def test_a_finding_says_what_is_each_words_own_and_which_others_share_it(tiny_tokenizer: Any) -> None:
    model = speaker("llama", tiny_tokenizer)
    run = run_of(model)
    found = nw.find(model, run, targets=[" cat", " dog", " house"], method="contribution", top=30, heat=False)
    scores = [nw.scores(model, run, target=word) for word in (" cat", " dog", " house")]
    content = found.to_dict()
    assert any(neuron["also"] for concept in content["concepts"] for neuron in concept["neurons"])
    for place, concept in enumerate(found.concepts):
        others = [one for at, one in enumerate(scores) if at != place]
        assert concept.own is not None
        for neuron, own, row in zip(
            concept.neurons.neurons, concept.own, content["concepts"][place]["neurons"], strict=True
        ):
            assert own == pytest.approx(
                scores[place].of(neuron) - sum(abs(one.of(neuron)) for one in others) / 2, abs=1e-6
            )
            assert row["own"] == own
            assert row["also"] == [
                one.target.text for at, one in enumerate(found.concepts) if at != place and neuron in one.neurons
            ]
    ranked = nw.find(
        model, run, targets=[" cat", " dog", " house"], method="contribution", top=30, heat=False, specific=2.0
    )
    pairs = [(run, run.target(target=word)) for word in (" dog", " house")]
    expected = specific_neurons(model, run, target=" cat", others=pairs, weight=2, top=30, method="contribution")
    assert ranked.concepts[0].neurons.neurons == expected.neurons
    assert ranked.to_dict()["meaning"].endswith(", less 2 × the mean size of its scores for the other words")
    with pytest.raises(MethodError, match="specific is -1"):
        nw.find(model, run, targets=[" cat", " dog"], method="contribution", specific=-1.0, heat=False)
    with pytest.raises(MethodError, match="specific is inf"):
        nw.find(model, run, targets=[" cat", " dog"], method="contribution", specific=float("inf"), heat=False)
    alone = nw.find(model, run, targets=[" cat"], method="contribution", top=5, heat=False)
    assert "own" not in alone.to_dict()["concepts"][0]["neurons"][0]
    with pytest.raises(MethodError, match="two or more"):
        nw.find(model, run, targets=[" cat"], method="contribution", specific=1.0, heat=False)
